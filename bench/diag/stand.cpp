#include "stand.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <limits>

#include "checkpoint/safetensors.h"
#include "files/digest.h"
#include "model/build_program.h"
#include "run/clock.h"
#include "run/result_files.h"
#include "text/corpus.h"
#include "text/tokenizer.h"

namespace hesper::bench {
namespace {

Windows first_window(const Case& what, const std::string& text, int64_t tokens) {
  const auto tokenizer = load_tokenizer(what.model);
  WindowOptions options;
  options.seqlen = tokens;
  options.b = 1;
  std::vector<std::string> notes;
  return cut_windows(tokenizer->encode(text_document(text)), tokenizer->bos(), options, notes);
}

ResolvedSelection select(const Model& model, const Case& what, const std::optional<at::Tensor>& indices) {
  SelectionRequest request;
  request.layers = {what.layer};
  request.blocks = std::to_string(what.block);
  request.indices = indices;
  return resolve_selection(model.weights.specs, model.config().blocks, request);
}

/// Rows 0, rows / n, 2 rows / n, .., whole.
at::Tensor spaced_rows(const std::vector<int64_t>& shape, int64_t count) {
  const int64_t rows = shape[0], columns = shape[1], n = count == 0 ? rows : std::min(count, rows);
  const at::Tensor chosen = at::arange(n) * rows / n;
  return (chosen.to(at::kLong).unsqueeze(1) * columns + at::arange(columns)).flatten();
}

at::Tensor exact_diagonal(const Stand& s, const std::filesystem::path& cache) {
  const std::filesystem::path file = cache / fmt::format("truth_{}.safetensors", s.key.substr(0, 16));
  if (std::filesystem::exists(file)) return SafetensorsFile(file.string()).view("diagonal").clone();
  const DiagonalResult r =
      compute_exact_diag(*s.model, s.rows, unit_sums(*s.model, s.rows, 128), s.windows, run_options());
  std::cout << fmt::format("{}: exact diagonal at {} entries, {:.1f} s\n", s.what.name(), s.rows.selection.size(),
                           r.seconds)
            << std::flush;
  std::filesystem::create_directories(cache);
  write_safetensors(file.string(), {{"diagonal", r.tensors[0].entries.mean}}, {{"of", s.what.name()}});
  return r.tensors[0].entries.mean;
}

}  // namespace

std::string Case::name() const {
  return fmt::format("{} {} of block {}", std::filesystem::path(model).filename().string(), layer, block);
}

DiagOptions run_options() {
  DiagOptions options;
  options.measure_precision = false;
  options.primal = at::kDouble;
  return options;
}

Stand make_stand(const Case& what, std::shared_ptr<const Model> model, const std::string& text, int64_t tokens,
                 const std::filesystem::path& cache) {
  const Windows windows = first_window(what, text, tokens);
  Program program = build_program(model->config(), tokens, at::Device(at::kCPU));
  const Parameters parameters(model->weights.values, at::kFloat, at::kCPU);
  const ResolvedSelection layer = select(*model, what, std::nullopt);
  const ResolvedSelection rows = select(*model, what, spaced_rows(layer.tensors[0].shape, what.truth_rows));
  const Tokens ids = make_tokens(windows.ids, windows.labels, at::kCPU);
  std::vector<double> seconds;
  std::optional<Tape> tape;
  for (int i = 0; i < 3; ++i) {
    tape.reset();
    const Clock::time_point begin = Clock::now();
    tape.emplace(run_primal(program, parameters, layer.selection, ids, at::kDouble));
    seconds.push_back(seconds_since(begin));
  }
  std::sort(seconds.begin(), seconds.end());
  const std::string depends =
      fmt::format("{} {} {} {}", model->checkpoint.sha256(), ids_sha256(windows.ids), selection_sha256(rows), "fp32");
  Stand stand{what,
              std::move(model),
              windows,
              std::move(program),
              parameters,
              layer,
              rows,
              std::move(*tape),
              seconds[1],
              {},
              sha256_hex(std::as_bytes(std::span(depends)))};
  stand.truth = exact_diagonal(stand, cache);
  return stand;
}

double pass_flops(const Stand& stand, Pass pass, int64_t directions) {
  EngineOptions options;
  options.memory_limit = std::numeric_limits<int64_t>::max();
  PlanRequest r = plan_request(stand.program, *stand.model, stand.layer.selection, stand.windows, options);
  r.pass = pass;
  r.columns = directions;
  r.matrices = 0;
  r.measure_precision = false;
  return make_plan(r).tangent_flops / static_cast<double>(directions);
}

}  // namespace hesper::bench
