#include "run/exact_totals.h"

#include <cmath>

#include "run/exact_files.h"
#include "run/primal_batches.h"

namespace hesper {

void MatrixSum::add(const Tensor& rows, int64_t begin) {
  total.narrow(0, begin, rows.size(0)).add_(rows);
  if (squares.defined()) squares.narrow(0, begin, rows.size(0)).addcmul_(rows, rows);
  const double norm = rows.norm().item<double>();
  square_norms += norm * norm;
}

ExactBlock MatrixSum::finish(int64_t b, bool symmetric) {
  ExactBlock out;
  out.kind = kind;
  out.matrix = total.div_(b);
  const double norm = out.matrix.norm().item<double>();
  if (!symmetric && norm > 0) out.symmetry_error = (out.matrix - out.matrix.t()).norm().item<double>() / norm;
  if (b < 2) return out;
  const double spread = std::max(0.0, square_norms - static_cast<double>(b) * norm * norm);
  if (norm > 0) out.data_error = std::sqrt(spread / static_cast<double>(b * (b - 1))) / norm;
  if (squares.defined())
    out.standard_error = squares.div_(b).sub_(out.matrix.square()).clamp_min_(0).div_(b - 1).sqrt_();
  return out;
}

ExactTotals::ExactTotals(const ExactOptions& options, int64_t n, int64_t b)
    : gradient(at::zeros({n}, at::kDouble)),
      losses(at::zeros({b}, at::kDouble)),
      columns(std::get<0>(at::randperm(n, at::kLong).slice(0, 0, precision_columns(n)).sort())),
      sample(at::zeros({columns.numel(), n}, at::kDouble)) {
  for (const Curvature kind : options.curvatures) sums.emplace_back(kind, n, options.full_errors && b >= 2);
}

void ExactTotals::add(const Unit& unit, const Tensor& batch_losses, const Tensor& batch_gradient) {
  losses.narrow(0, unit.first_window, unit.windows).copy_(batch_losses);
  require_finite(losses.narrow(0, unit.first_window, unit.windows), unit.first_window);
  gradient.add_(batch_gradient.cpu());
}

void ExactTotals::add(const std::vector<Tensor>& rows, int64_t begin, int64_t window) {
  for (size_t i = 0; i < sums.size(); ++i) sums[i].add(rows[i], begin);
  ++done;
  if (window != 0) return;
  for (int64_t c = 0; c < columns.numel(); ++c)
    if (const int64_t row = columns[c].item<int64_t>() - begin; row >= 0 && row < rows[0].size(0))
      sample[c].copy_(rows[0][row]);
}

RunState ExactTotals::state(const Plan& plan) const {
  RunState out;
  out.plan = plan_choices(plan);
  out.done = done;
  out.numbers = {{"seconds", seconds}, {"primal_seconds", primal_seconds}};
  out.tensors = {{"gradient", gradient}, {"losses", losses}, {"columns", columns.to(at::kDouble)}, {"sample", sample}};
  for (const MatrixSum& sum : sums) {
    const std::string name = to_string(sum.kind);
    out.tensors.emplace_back(name, sum.total);
    if (sum.squares.defined()) out.tensors.emplace_back(name + ".squares", sum.squares);
    out.tensors.emplace_back(name + ".square_norms", at::full({1}, sum.square_norms, at::kDouble));
  }
  return out;
}

void ExactTotals::restore(const RunState& from) {
  done = from.done;
  seconds = from.numbers.value("seconds", 0.0), primal_seconds = from.numbers.value("primal_seconds", 0.0);
  gradient.copy_(from.tensor("gradient", gradient.sizes()));
  losses.copy_(from.tensor("losses", losses.sizes()));
  columns.copy_(from.tensor("columns", columns.sizes()));
  sample.copy_(from.tensor("sample", sample.sizes()));
  for (MatrixSum& sum : sums) {
    const std::string name = to_string(sum.kind);
    sum.total.copy_(from.tensor(name, sum.total.sizes()));
    if (sum.squares.defined()) sum.squares.copy_(from.tensor(name + ".squares", sum.squares.sizes()));
    sum.square_norms = from.tensor(name + ".square_norms", {1}).item<double>();
  }
}

}  // namespace hesper
