#include "run/plan.h"

#include <ATen/Context.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <stdexcept>

#include "ops/fused.h"
#include "run/memory.h"

namespace hesper {
namespace {

// A two-pass chunk larger than this gains nothing: the products are already hundreds of rows tall. Chunks of 4 are
// within a few percent of it; below that, running a block's tangents twice is no slower and saves more.
constexpr int64_t kMostDirections = 16, kFewestKept = 4;
// fp64 products run at about this fraction of fp32's rate on a CPU (measured: 55-65 against 110-150 GFLOP/s).
constexpr double kDoubleCost = 2.2;
// While a result is written: bytes an entry of the matrix (its symmetric part, and that again for the eigenvalues), and
// what the pictures take (measured at n = 1,200: 26 to 46 MiB beside the entries' 34; at n = 5,000 26 bytes an entry).
constexpr int64_t kWriting = 24, kPictures = int64_t{32} << 20;

// What costs least first: everything kept, then weights that come at every use, then a block's tangents made twice,
// then a tape that comes and goes (between a GPU and its host).
struct Way {
  bool streamed, spilled, recompute;
};
constexpr Way kWays[] = {{false, false, false}, {true, false, false}, {false, false, true},
                         {true, false, true},   {true, true, false},  {true, true, true}};
bool is_possible(const Way& way, Pass pass, const RunShapes& r) {
  const bool several = r.program->devices().size() > 1;
  return (!way.spilled || !r.device.is_cpu()) && (!way.recompute || pass == Pass::two_pass) &&
         !(several && (way.streamed || way.spilled));
}

struct Work {
  double primal, gram, two_pass, again, adjoint;
};

Work work_of(const PlanRequest& r) {
  const RunFlops f = count_flops(r);
  const auto n = static_cast<double>(r.columns > 0 ? r.columns : r.selection->size()),
             tokens = static_cast<double>(r.tokens * r.windows);
  const auto counted = static_cast<double>(r.counted > 0 ? r.counted : (r.tokens - 1) * r.windows);
  Work work{};
  work.primal = tokens * f.primal + counted * 2 * f.head;
  work.gram =
      n * (tokens * (f.tangent + f.form + n * f.form_pairs) + counted * (f.head + std::min(f.head, n * f.head_pairs)));
  work.two_pass = n * (tokens * (f.tangent + f.adjoint_tangent) + counted * 2 * f.head);
  work.again = n * tokens * f.again;
  work.adjoint = n * (tokens * f.adjoint + counted * f.head);
  return work;
}

// Whether the values lie in memory of the process and not in a mapped file.
bool owns_memory(const at::Tensor& value) {
  return value.storage().data_ptr().get_deleter() == at::getCPUAllocator()->raw_deleter();
}

}  // namespace

std::string to_string(Pass pass) {
  switch (pass) {
    case Pass::gram:
      return "gram";
    case Pass::two_pass:
      return "two-pass";
    case Pass::adjoint:
      return "adjoint";
    default:
      return "primal";
  }
}

std::string EngineOptions::device_names() const {
  std::vector<std::string> names;
  for (at::Device one : devices()) names.push_back(one.str());
  return fmt::format("{}", fmt::join(names, ","));
}

PlanRequest plan_request(const Program& program, const Model& model, const Selection& selection, const Windows& windows,
                         const EngineOptions& options) {
  PlanRequest r;
  r.program = &program;
  for (const ParameterSpec& spec : model.weights.specs) r.parameter_shapes.push_back(spec.shape);
  for (const at::Tensor& value : model.weights.values) {
    r.stored.push_back(value.scalar_type());
    if (owns_memory(value)) r.loaded += static_cast<int64_t>(value.nbytes());
  }
  r.selection = &selection;
  r.windows = windows.ids.size(0);
  r.tokens = windows.ids.size(1);
  r.counted = windows.labels.slice(1, 1).ge(0).sum().item<int64_t>();
  r.device = options.device;
  r.kernels = options.absent || fused::serves(options.device);
  r.batch = options.batch;
  r.precision = options.precision;
  r.products = options.products;
  r.primal = options.primal;
  r.directions = options.directions;
  r.memory_limit = options.memory_limit;
  if (r.memory_limit <= 0) {
    r.memory_limit = allowed_memory(options.device);
    for (at::Device other : options.others) r.memory_limit = std::min(r.memory_limit, allowed_memory(other));
  }
  r.beside = options.beside;
  r.measure_precision = options.measure_precision;
  return r;
}

int64_t precision_columns(int64_t n) { return std::min(n, std::max<int64_t>(4, n / 16)); }

std::optional<Memory> fit_form(const RunShapes& shapes, RunForm& form, int64_t limit) {
  const bool twice = form.recompute;
  for (const Way& way : kWays) {
    if (!is_possible(way, form.pass, shapes) || (twice && !way.recompute)) continue;
    form.streamed = way.streamed, form.spilled = way.spilled, form.recompute = way.recompute;
    if (const Memory m = forecast_memory(shapes, form); m.total() <= limit) return m;
  }
  return std::nullopt;
}

Plan make_plan(const PlanRequest& r) {
  const int64_t n = r.columns > 0 ? r.columns : r.selection->size();
  if (r.pass == Pass::gram && r.directions > 0 && r.directions < n)
    throw std::invalid_argument(
        fmt::format("--pass gram carries all {} weights at once, but --directions is {}", n, r.directions));
  const Work work = work_of(r);
  Plan plan;
  plan.precision = r.precision;
  plan.products = r.products;
  plan.batch = std::min(r.batch, r.windows);
  plan.limit = r.memory_limit;
  plan.primal_flops = work.primal;
  const bool cpu = r.device.is_cpu();
  const auto fits = [&](Pass pass, int64_t k, bool recompute) {
    plan.pass = pass;
    plan.directions = k;
    plan.recompute = recompute;
    plan.tangent_flops = pass == Pass::gram       ? work.gram
                         : pass == Pass::two_pass ? work.two_pass + (recompute ? work.again : 0)
                         : pass == Pass::adjoint  ? work.adjoint
                                                  : 0;
    // fp64 costs little on a GPU.
    const bool wide = !cpu || r.precision == at::kDouble || kDoubleCost * work.primal < plan.tangent_flops / 4;
    plan.primal = r.primal.value_or(wide ? at::kDouble : at::kFloat);
    plan.memory = forecast_memory(r, plan);
    return plan.memory.total() <= plan.limit;
  };
  const Pass chunked = r.pass.value_or(Pass::two_pass);
  const auto chunks_fit = [&](bool recompute) {
    const int64_t most = std::min(n, r.directions > 0 ? r.directions : kMostDirections);
    const int64_t least = r.directions > 0 ? most : recompute ? 1 : std::min(most, kFewestKept);
    for (int64_t k = most;; k = std::max(least, (k + 1) / 2)) {
      if (fits(chunked, k, recompute)) return true;
      if (k == least) return false;
    }
  };

  const bool gram_wanted =
      r.pass ? *r.pass == Pass::gram : work.gram <= work.two_pass && (r.directions == 0 || r.directions >= n);
  bool ok = false;
  for (const Way& way : kWays) {
    plan.streamed = way.streamed, plan.spilled = way.spilled;
    ok = gram_wanted && is_possible(way, Pass::gram, r) && fits(Pass::gram, n, false);
    if (!ok && r.pass != Pass::gram && is_possible(way, chunked, r)) ok = chunks_fit(way.recompute);
    if (ok) break;
  }
  if (cpu && r.matrices > 0) plan.writing = plan.memory.library + kPictures + n * n * (8 * r.matrices + kWriting);
  if (!ok || plan.writing > plan.limit)
    throw std::runtime_error(fmt::format(
        "memory: the smallest plan ({}, {} direction{} at once) needs {:.0f} MiB, {:.0f} MiB are allowed",
        plan.pass == Pass::gram ? "Gram pass" : to_string(plan.pass) + " products", plan.directions,
        plan.directions == 1 ? "" : "s", static_cast<double>(std::max(plan.memory.total(), plan.writing)) / (1 << 20),
        static_cast<double>(plan.limit) / (1 << 20)));
  plan.by_device = forecast_devices(r, plan);
  const int64_t batches = (r.windows + plan.batch - 1) / plan.batch;
  plan.units = batches * ((n + plan.directions - 1) / plan.directions);

  if (r.measure_precision && r.precision != at::kDouble) {
    RunForm& form = plan.check_form;
    form.pass = plan.pass == Pass::gram ? Pass::two_pass : plan.pass;
    form.directions = std::min(check_directions, precision_columns(n));
    form.precision = form.primal = at::kDouble;
    const std::optional<Memory> memory = fit_form(r, form, plan.limit);
    plan.measure_precision = memory.has_value();
    plan.check = memory.value_or(Memory{});
  }
  return plan;
}

}  // namespace hesper
