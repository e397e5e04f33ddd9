// Milliseconds a column of an exact block, all in: (primal pass + tangent passes) / t, of each pass and precision,
// beside LibTorch's double backward in the same process, threads and allocator. The reference's Python loop is the
// other rival: scripts/bench_hvp runs both and keeps the table.
#include <malloc.h>
#include <sys/resource.h>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "hessian/autograd_engine.h"
#include "hessian/selection_request.h"
#include "model/build_program.h"
#include "model/model.h"
#include "primal/primal.h"
#include "run/memory.h"
#include "run/plan.h"
#include "tangent/tangent_pass.h"
#include "text/npy.h"

namespace hesper {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
int64_t faults() {
  rusage u{};
  getrusage(RUSAGE_SELF, &u);
  return u.ru_minflt;
}
double gemm_rate(at::ScalarType dtype, int64_t rows) {  // GFLOP/s of a product like those of the model
  const Tensor a = at::randn({rows, 768}, dtype), b = at::randn({768, 2048}, dtype);
  a.mm(b);
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const double t = now();
    for (int k = 0; k < 4; ++k) a.mm(b);
    best = std::max(best, 4 * 2e-9 * static_cast<double>(rows) * 768 * 2048 / (now() - t));
  }
  return best;
}

struct Setting {
  std::string name;
  int64_t k;  // 0: Gram pass
  at::ScalarType primal, tangents;
};

int run(int argc, char** argv) {
  std::string model_folder, ids_file, json_file, layer = "self_attn.q_proj", only;
  int64_t tokens = 512, t = 16, block = 0, repeats = 1;
  int threads = 2;
  CLI::App app{"ms a column of an exact block"};
  app.add_option("--model", model_folder)->required();
  app.add_option("--ids", ids_file, ".npy of ids; default: random");
  app.add_option("--layer", layer);
  app.add_option("--block", block);
  app.add_option("--tokens", tokens);
  app.add_option("--t", t);
  app.add_option("--threads", threads);
  app.add_option("--repeats", repeats);
  app.add_option("--only", only, "substring of the rows to run");
  app.add_option("--json", json_file);
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(threads);
  const at::NoGradGuard no_grad;

  const Model model = load_model(model_folder);
  const Program program = build_program(model.config(), tokens);
  SelectionRequest request;
  request.layers = {layer};
  request.blocks = std::to_string(block);
  request.t = t;
  const Selection selection = resolve_selection(model.weights.specs, model.config().blocks, request).selection;
  at::manual_seed(0);
  const Tensor ids = ids_file.empty() ? at::randint(4, model.config().vocab, {1, tokens}, at::kLong)
                                      : read_npy(ids_file).flatten().narrow(0, 0, tokens).to(at::kLong).unsqueeze(0);
  const Tokens batch = make_tokens(ids, ids, at::kCPU);

  PlanRequest plan_request;
  plan_request.program = &program;
  for (const auto& spec : model.weights.specs) plan_request.parameter_shapes.push_back(spec.shape);
  for (const auto& value : model.weights.values) plan_request.stored.push_back(value.scalar_type());
  plan_request.selection = &selection;
  plan_request.tokens = tokens;
  plan_request.memory_limit = INT64_MAX;

  nlohmann::json rows = nlohmann::json::array();
  Tensor exact;  // fp64
  double autograd_ms = 0;
  const double rate = gemm_rate(at::kFloat, 512), rate64 = gemm_rate(at::kDouble, 512);
  std::cout << fmt::format("{} block {} {}, T = {}, t = {}, {} threads; gemm {:.0f} GFLOP/s fp32, {:.0f} fp64\n",
                           model_folder, block, layer, tokens, t, threads, rate, rate64);
  std::cout << fmt::format("{:34} {:>10} {:>10} {:>8} {:>9} {:>9} {:>9} {:>9} {:>8}\n", "row", "ms/column", "primal ms",
                           "ratio", "of bound", "GFLOP/s", "peak MiB", "faults", "error");
  const auto report = [&](const std::string& name, double primal, double total, double flops, double bound_seconds,
                          int64_t peak, int64_t fault, const Tensor& h) {
    const double error = ((h.to(at::kDouble) - exact).norm() / exact.norm()).item<double>(),
                 ms = 1e3 * total / static_cast<double>(t);
    if (name == "autograd fp32") autograd_ms = ms;
    const double ratio = autograd_ms > 0 ? autograd_ms / ms : 0;
    std::cout << fmt::format("{:34} {:10.1f} {:10.1f} {:8.2f} {:9.2f} {:9.1f} {:9.0f} {:9} {:8.1e}\n", name, ms,
                             1e3 * primal, ratio, bound_seconds / total, flops / total * 1e-9,
                             static_cast<double>(peak) / (1 << 20), fault, error)
              << std::flush;
    rows.push_back({{"row", name},
                    {"ms_column", ms},
                    {"primal_ms", 1e3 * primal},
                    {"ratio_to_autograd", ratio},
                    {"of_bound", bound_seconds / total},
                    {"gflops", flops / total * 1e-9},
                    {"peak_bytes", peak},
                    {"page_faults", fault},
                    {"error", error}});
  };

  {  // truth: fp64 two-pass
    const Parameters p(model.weights.values, at::kDouble, at::kCPU);
    const Tape tape = run_primal(program, p, selection, batch, at::kDouble);
    const TangentPass pass(program, p, selection, tape);
    Tensors h;
    for (int64_t i = 0; i < t; i += 8)
      h.push_back(
          pass.product(Directions::units(selection, i, std::min(t, i + 8), at::kDouble), 0, Curvature::hessian));
    exact = at::cat(h);
  }
  const auto wanted = [&](const std::string& name) { return only.empty() || name.find(only) != std::string::npos; };
  if (wanted("autograd fp32")) {
    const Parameters p(model.weights.values, at::kFloat, at::kCPU);
    {
      const AutogradEngine warm(program, p, selection, batch, at::kFloat);
      warm.columns(0, 1);
    }
    for (int64_t i = 0; i < repeats; ++i) {
      const PeakMemory memory;
      const int64_t f = faults();
      const double begin = now();
      const AutogradEngine engine(program, p, selection, batch, at::kFloat);
      const double primal = now() - begin;
      const Tensor h = engine.columns(0, t);
      plan_request.pass = Pass::two_pass;
      plan_request.primal = at::kFloat;
      const Plan plan = make_plan(plan_request);
      report("autograd fp32", primal, now() - begin, plan.primal_flops + plan.tangent_flops,
             (plan.primal_flops + plan.tangent_flops) / rate * 1e-9, memory.peak() - memory.baseline(), faults() - f,
             h);
    }
  }
  const std::vector<Setting> settings = {{"two-pass K=1 fp64+fp32", 1, at::kDouble, at::kFloat},
                                         {"two-pass K=4 fp64+fp32", 4, at::kDouble, at::kFloat},
                                         {"two-pass K=16 fp64+fp32", 16, at::kDouble, at::kFloat},
                                         {"gram fp64+fp32", 0, at::kDouble, at::kFloat},
                                         {"gram fp32+fp32", 0, at::kFloat, at::kFloat}};
  for (const Setting& s : settings) {
    if (!wanted(s.name)) continue;
    const Parameters p(model.weights.values, s.tangents, at::kCPU);
    for (int64_t i = 0; i < repeats; ++i) {
      const PeakMemory memory;
      const int64_t f = faults();
      const double begin = now();
      const Tape tape = run_primal(program, p, selection, batch, s.primal);
      const double primal = now() - begin;
      const TangentPass pass(program, p, selection, tape);
      Tensor h;
      if (s.k == 0) {
        const auto forms = pass.second_order(Directions::units(selection, 0, t, s.tangents), 0);
        h = forms.gauss_newton + forms.residual;
      } else {
        Tensors parts;
        for (int64_t b = 0; b < t; b += s.k)
          parts.push_back(
              pass.product(Directions::units(selection, b, std::min(t, b + s.k), s.tangents), 0, Curvature::hessian));
        h = at::cat(parts);
      }
      const double total = now() - begin;
      plan_request.pass = s.k == 0 ? Pass::gram : Pass::two_pass;
      plan_request.primal = s.primal;
      plan_request.directions = s.k;
      const Plan plan = make_plan(plan_request);
      report(s.name, primal, total, plan.primal_flops + plan.tangent_flops,
             1e-9 * (plan.primal_flops / (s.primal == at::kDouble ? rate64 : rate) + plan.tangent_flops / rate),
             memory.peak() - memory.baseline(), faults() - f, h);
    }
  }
  if (!json_file.empty())
    std::ofstream(json_file) << nlohmann::json{{"model", model_folder},
                                               {"layer", layer},
                                               {"block", block},
                                               {"tokens", tokens},
                                               {"t", t},
                                               {"threads", threads},
                                               {"gemm_gflops_fp32", rate},
                                               {"gemm_gflops_fp64", rate64},
                                               {"rows", rows}}
                                    .dump(1)
                             << "\n";
  return 0;
}

}  // namespace
}  // namespace hesper

int main(int argc, char** argv) {
  // The tuned allocator, for every row and the rival alike: freed buffers stay with the process.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, INT32_MAX);
  try {
    return hesper::run(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "bench_hvp: " << e.what() << "\n";
    return 1;
  }
}
