#include "row.h"

#include <sys/resource.h>

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <limits>
#include <numeric>

#include "hessian/selection_request.h"
#include "text/npy.h"

namespace hesper::bench {
namespace {

Row hesper_row(const std::string& name, Pass pass, int64_t directions, at::ScalarType primal) {
  Row row{name, {}};
  row.options.pass = pass;
  row.options.directions = directions;
  row.options.primal = primal;
  return row;
}

Windows windows_of(const Problem& problem, const ModelConfig& config) {
  WindowOptions options;
  options.seqlen = problem.tokens;
  options.b = problem.b;
  options.bos = BosPlacement::none;
  std::vector<std::string> notes;
  if (!problem.ids.empty()) return windows_from_files(problem.ids, {}, {}, options, notes);
  at::manual_seed(0);
  const Tensor ids = at::randint(4, config.vocab, {problem.b * problem.tokens}, at::kInt);
  return cut_windows({ids.data_ptr<int32_t>(), static_cast<size_t>(ids.numel())}, {}, options, notes);
}

Selection select(const Model& model, const Problem& problem, int64_t t) {
  SelectionRequest request;
  request.layers = {problem.layer};
  request.blocks = std::to_string(problem.block);
  request.t = t;
  return resolve_selection(model.weights.specs, model.config().blocks, request).selection;
}

double cpu_seconds(const rusage& u) {
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(u.ru_utime) + seconds(u.ru_stime);
}
rusage usage() {
  rusage u{};
  getrusage(RUSAGE_SELF, &u);
  return u;
}

}  // namespace

std::vector<Row> all_rows() {
  Row truth = hesper_row(kTruth, Pass::two_pass, 8, at::kDouble);
  Row autograd = {.name = kAutograd, .options = ExactOptions()};
  truth.options.precision = at::kDouble;
  autograd.options.engine = Engine::autograd;
  autograd.options.primal = at::kFloat;
  autograd.options.pass = Pass::two_pass;
  std::vector<Row> rows{truth,
                        autograd,
                        hesper_row("two-pass K=1 fp64+fp32", Pass::two_pass, 1, at::kDouble),
                        hesper_row("two-pass K=4 fp64+fp32", Pass::two_pass, 4, at::kDouble),
                        hesper_row("two-pass K=16 fp64+fp32", Pass::two_pass, 16, at::kDouble),
                        hesper_row("gram fp64+fp32", Pass::gram, 0, at::kDouble),
                        hesper_row("gram fp32+fp32", Pass::gram, 0, at::kFloat)};
  for (Row& row : rows) {
    row.options.measure_precision = false;
    row.options.memory_limit = std::numeric_limits<int64_t>::max();
  }
  return rows;
}

nlohmann::json measure(const Row& row, const Problem& problem, const std::filesystem::path& matrix) {
  at::set_num_threads(problem.threads);
  const Model model = load_model(problem.model);
  const Windows windows = windows_of(problem, model.config());
  compute_exact(
      model, select(model, problem, 1),
      windows_of({.model = problem.model, .ids = problem.ids, .tokens = problem.tokens, .b = 1}, model.config()),
      row.options);
  const Selection selection = select(model, problem, problem.t);
  nlohmann::json out;
  for (int64_t i = 0; i < problem.repeats; ++i) {
    const rusage before = usage();
    const ExactResult result = compute_exact(model, selection, windows, row.options);
    const rusage after = usage();
    out["seconds"].push_back(result.seconds);
    out["primal_seconds"].push_back(result.primal_seconds);
    out["cpu_seconds"].push_back(cpu_seconds(after) - cpu_seconds(before));
    out["page_faults"].push_back(after.ru_minflt - before.ru_minflt);
    if (i > 0) continue;
    out["primal_flops"] = result.plan.primal_flops;
    out["tangent_flops"] = result.plan.tangent_flops;
    out["plan_bytes"] = result.plan.peak();
    write_npy(matrix, result.blocks[0].matrix);
  }
  return out;
}

}  // namespace hesper::bench
