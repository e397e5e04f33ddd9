#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "model/build_program.h"
#include "ops/linear.h"
#include "run/diag.h"
#include "run/diag_plan.h"
#include "run/exact_files.h"
#include "run/ledger.h"
#include "run/memory.h"
#include "run/primal_batches.h"
#include "run/result_files.h"
#include "run/streamed_weights.h"
#include "run/tensor_moments.h"
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

using at::Tensor;

// Directions of a Gram pass: for single entries so many that the K^2 products are few beside K passes; for the basis of
// a row as many as a row needs, where they fit.
constexpr int64_t kUnits = 64, kMostDirections = 1024;

struct Job {
  const Model& model;
  const ResolvedSelection& selection;
  const Windows& windows;
  const DiagOptions& options;
  const Program& program;
};

/// Largest number of directions that the basis of a row could need.
int64_t widest_basis(const Job& job) {
  int64_t columns = 0;
  for (const SelectedPart& part : job.selection.selection.parts()) columns = std::max(columns, part.cols.numel());
  return std::min({columns, job.windows.ids.size(1), kMostDirections});
}

/// The linear layer with this weight; null for another parameter.
const Linear* linear_of(const Program& program, int parameter) {
  for (const auto& op : program.ops())
    if (const auto* linear = dynamic_cast<const Linear*>(op.get()); linear && linear->parameters[0] == parameter)
      return linear;
  return nullptr;
}

/// Tangents of one window: a row of a linear layer needs at most as many as there are tokens.
int64_t tangents_of(const Job& job, int64_t directions) {
  const int64_t tokens = job.windows.ids.size(1);
  int64_t out = 0;
  for (size_t i = 0; i < job.selection.tensors.size(); ++i) {
    const SelectedPart& part = job.selection.selection.parts()[i];
    const bool by_rows = tokens < part.cols.numel() && tokens <= directions &&
                         is_rectangle(part, job.selection.tensors[i].shape) && linear_of(job.program, part.parameter);
    out += by_rows ? part.rows.numel() * tokens : part.size;
  }
  return out;
}

/// The Gram pass with as many directions at once as fit.
Plan plan_units(const Job& job, const std::vector<UnitSums>& sums) {
  PlanRequest r = diag_request(job.program, job.model, job.selection.selection, sums, job.windows, job.options);
  r.pass = Pass::gram;
  r.directions = 0;
  r.columns = std::min(job.options.directions > 0 ? job.options.directions : std::max(kUnits, widest_basis(job)),
                       r.selection->size());
  while (true) {
    try {
      Plan plan = make_plan(r);
      plan.units = r.windows * static_cast<int64_t>(sums.size());
      plan.tangent_flops *= static_cast<double>(tangents_of(job, plan.directions)) / static_cast<double>(r.columns);
      return plan;
    } catch (const std::runtime_error&) {  // does not fit
      if (r.columns == 1 || job.options.directions > 0) throw;
      r.columns = (r.columns + 1) / 2;
    }
  }
}

Tensor pick(const TangentPass::Forms& forms, Curvature kind) {
  if (kind == Curvature::gauss_newton) return forms.gauss_newton;
  if (kind == Curvature::residual) return forms.residual;
  return forms.gauss_newton + forms.residual;
}

/// Inputs (T, C) of the linear layer with this weight in one window of the tape, on the device; undefined for another
/// parameter.
Tensor inputs_of(const Program& program, const Tape& tape, int parameter, int64_t place, at::Device device) {
  const Linear* linear = linear_of(program, parameter);
  for (size_t i = 0; linear && i < program.ops().size(); ++i)
    if (program.ops()[i].get() == linear)
      return linear->input(tape.ops[i]).narrow(0, place * tape.tokens.length, tape.tokens.length).to(device);
  return {};
}

/// (r, C) orthonormal rows that span those of x (T, C), up to x's rounding.
Tensor row_basis(const Tensor& x) {
  const auto [u, s, vh] = at::linalg_svd(x.to(at::kDouble), false);
  const double rounding = (x.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon()
                                                          : std::numeric_limits<float>::epsilon()) *
                          static_cast<double>(std::max(x.size(0), x.size(1)));
  const int64_t rank = s.gt(s[0] * rounding).sum().item<int64_t>();
  return vh.narrow(0, 0, rank);
}

/// Diagonal at entries of one tensor in one window.
class WindowDiagonal {
 public:
  /// Called after some entries with the number of directions they took.
  using OnEntries = std::function<void(int64_t directions)>;

  WindowDiagonal(const Job& job, const Parameters& parameters, const Tape& tape, int64_t place, int64_t directions,
                 OnEntries on_entries)
      : job_(job),
        parameters_(parameters),
        tape_(tape),
        place_(place),
        directions_(directions),
        on_entries_(std::move(on_entries)) {}

  /// Fills in d (n) from entry `at` on, which says after every few how many are there: () fp64.
  void fill(const Selection& selection, const std::vector<int64_t>& shape, Tensor d, Tensor at) const {
    const SelectedPart& part = selection.parts()[0];
    if (is_rectangle(part, shape)) {
      const Tensor x = inputs_of(job_.program, tape_, part.parameter, place_, parameters_.device());
      if (x.defined()) {
        const Tensor basis = row_basis(x.index_select(1, part.cols.to(x.device())));
        if (basis.size(0) < part.cols.numel() && basis.size(0) <= directions_) return rows(part, shape, basis, d, at);
      }
    }
    units(selection, d, at);
  }

  /// Single entries.
  void units(const Selection& entries, Tensor d, Tensor at) const {
    const Selection selection = entries.to(parameters_.devices());
    const Tape own = narrowed(tape_, job_.program, selection);
    const TangentPass pass(job_.program, parameters_, selection, own);
    const int64_t step = std::min(directions_, kUnits);
    for (int64_t i = at.item<int64_t>(); i < selection.size(); i += step) {
      const int64_t end = std::min(i + step, selection.size());
      const Directions v = Directions::units(selection, i, end, parameters_.working());
      d.slice(0, i, end).copy_(pick(pass.second_order(v, place_), job_.options.curvature).diagonal());
      at.fill_(end);
      on_entries_(end - i);
    }
  }

 private:
  /// One row after another; basis (r, columns of the part).
  void rows(const SelectedPart& part, const std::vector<int64_t>& shape, const Tensor& basis, Tensor d,
            Tensor at) const {
    const int64_t columns = part.cols.numel();
    const Tensor v = basis.to(parameters_.working());
    for (int64_t r = at.item<int64_t>() / columns; r < part.rows.numel(); ++r) {
      Selection entries;
      entries.add(part.parameter, shape, part.rows[r] * part.columns + part.cols);
      const Selection row = entries.to(parameters_.devices());
      const Tape own = narrowed(tape_, job_.program, row);
      const TangentPass pass(job_.program, parameters_, row, own);
      const Tensor form =
          pick(pass.second_order(Directions::dense(row, v, v.scalar_type()), place_), job_.options.curvature);
      d.narrow(0, r * columns, columns).copy_(form.mm(basis).mul_(basis).sum(0));
      at.fill_((r + 1) * columns);
      on_entries_(v.size(0));
    }
  }

  const Job& job_;
  const Parameters& parameters_;
  const Tape& tape_;
  int64_t place_, directions_;
  OnEntries on_entries_;
};

/// Relative error of entries of one tensor in window 0, `d` (n), against the same in fp64.
double measure_precision(const Job& job, const ResolvedSelection& tensor, const Tensor& d, const RunForm& form) {
  constexpr int64_t entries = 16;
  const SelectedPart& part = tensor.selection.parts()[0];
  const Tensor chosen = std::get<0>(at::randperm(part.size, at::kLong).slice(0, 0, entries).sort());
  Selection some;  // on the CPU
  some.add(part.parameter, tensor.tensors[0].shape, part.entries().index_select(0, chosen));
  const Parameters parameters = make_parameters(job.model, job.program, job.options.device, form);
  const Selection here = some.to(job.program.parameter_devices());
  PrimalBatches primal(job.program, parameters, here, job.windows, form);
  const WindowDiagonal diagonal(job, parameters, primal.tape(0), 0, check_directions, [](int64_t) {});
  const Tensor exact = at::zeros({some.size()}, at::kDouble);
  diagonal.units(some, exact, at::zeros({}, at::kDouble));
  return (d.index_select(0, chosen) - exact).norm().item<double>() / exact.norm().item<double>();
}

}  // namespace

Plan plan_exact_diag(const Model& model, const ResolvedSelection& selection, const std::vector<UnitSums>& sums,
                     const Windows& windows, const DiagOptions& options) {
  const Program program = build_program(model.config(), windows.ids.size(1), options.devices(), options.absent);
  return plan_units({model, selection, windows, options, program}, sums);
}

std::vector<ExactCost> exact_costs(const Model& model, const ResolvedSelection& selection, const Windows& windows,
                                   const DiagOptions& options) {
  const Program program = build_program(model.config(), windows.ids.size(1), options.devices(), options.absent);
  std::vector<ExactCost> out;
  for (const ResolvedSelection& one : split_by_tensor(selection)) {
    const Job job{model, one, windows, options, program};
    const SelectedPart& part = one.selection.parts()[0];
    const int64_t n = one.selection.size(), basis = widest_basis(job);
    const bool rows =
        basis < part.cols.numel() && is_rectangle(part, one.tensors[0].shape) && linear_of(program, part.parameter);
    PlanRequest r = diag_request(program, model, one.selection, {}, windows, options);
    r.pass = Pass::gram;
    r.directions = 0;
    r.windows = 1;
    r.counted = 0;
    r.columns = rows ? basis : std::min(kUnits, n);
    r.measure_precision = false;
    const double directions = static_cast<double>(rows ? part.rows.numel() * basis : n);
    try {
      out.push_back({directions, make_plan(r).tangent_flops * directions / static_cast<double>(r.columns)});
    } catch (const std::runtime_error&) {  // does not fit
      constexpr double infinite = std::numeric_limits<double>::infinity();
      out.push_back({infinite, infinite});
    }
  }
  return out;
}

DiagonalResult compute_exact_diag(const Model& model, const ResolvedSelection& selection,
                                  const std::vector<UnitSums>& sums, const Windows& windows, const DiagOptions& given,
                                  const RunControl& control, const OnSamples& on_samples) {
  const at::NoGradGuard no_grad;
  const DiagOptions options = resumed_options(given, control);
  const Program program = build_program(model.config(), windows.ids.size(1), options.devices());
  const Job job{model, selection, windows, options, program};
  const int64_t b = windows.ids.size(0);
  const PeakMemory memory(options.devices());
  const Plan plan = plan_units(job, sums);
  const std::vector<ResolvedSelection> parts = split_by_tensor(selection);
  int64_t largest = 0;
  for (const ResolvedSelection& part : parts) largest = std::max(largest, part.selection.size());
  const Tensor losses = at::zeros({b}, at::kDouble);
  const Tensor first = at::zeros({parts[0].selection.size()}, at::kDouble);  // of the first tensor in window 0
  const Tensor entries = at::zeros({largest}, at::kDouble), at = at::zeros({}, at::kDouble);  // of the step so far
  TensorMoments moments(selection.selection, all_of(sums), b, Samples::exact);
  NamedTensors tensors = moments.all_sums("0");
  tensors.insert(tensors.end(), {{"losses", losses}, {"first", first}, {"entries", entries}, {"at", at}});
  Ledger ledger(control, b, plan.batch);
  ledger.begin({plan_choices(plan), {}, static_cast<int64_t>(parts.size()), tensors});
  DiagonalResult result;
  {
    const Parameters parameters = make_parameters(model, program, options.device, plan);
    const Selection here = selection.selection.to(program.parameter_devices());
    PrimalBatches primal(job.program, parameters, here, windows, plan);
    for (int64_t s = 0; s < b; ++s)
      for (size_t i = 0; i < parts.size(); ++i) {
        if (!ledger.next(s)) continue;
        const WindowDiagonal diagonal(job, parameters, primal.tape(s), primal.place(s), plan.directions,
                                      [&](int64_t directions) { ledger.inside(static_cast<double>(directions)); });
        const Selection& part = parts[i].selection;
        const Tensor d = entries.narrow(0, 0, part.size());
        diagonal.fill(part, parts[i].tensors[0].shape, d, at);
        require_finite(d, windows.index[s]);
        if (ledger.is_first(s)) losses[s].copy_(primal.losses()[s]);
        if (s == 0 && i == 0) first.copy_(d);
        const Tensor z = d.unsqueeze(0);
        if (on_samples) on_samples(i, s, 0, z);
        moments.entries[i].begin_visit(s);
        moments.entries[i].add(z);
        moments.sums[i].begin_visit(s);
        moments.sums[i].add(sums[i].of(z));
        at.zero_();
        ledger.end(s, 0);
      }
    ledger.finish();
    result.products = ledger.products();
    result.loss = mean_loss(losses, windows);
  }
  for (size_t i = 0; i < parts.size(); ++i)
    result.tensors.push_back({moments.entries[i].bars(), moments.sums[i].bars(), nlohmann::json::object()});
  result.seconds = ledger.seconds();
  if (plan.measure_precision) {
    ledger.stop_here();
    result.precision_error = measure_precision(job, parts[0], first, plan.check_form);
  }
  result.device = options.device_names();
  result.precision =
      fmt::format("{} tangents, {} primal", precision_name(plan.precision, plan.products), precision_name(plan.primal));
  result.peak_memory = memory.peak();
  result.notes["plan"] = plan_json(plan);
  return result;
}

}  // namespace hesper
