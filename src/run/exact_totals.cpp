#include "run/exact_totals.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "run/exact_files.h"
#include "run/primal_batches.h"

namespace hesper {
namespace {

constexpr uint64_t kColumnSeed = 0;  // the same columns in whoever goes on

}  // namespace

void MatrixSum::add(const Tensor& rows, int64_t begin) {
  total.narrow(0, begin, rows.size(0)).add_(rows);
  if (squares.defined()) squares.narrow(0, begin, rows.size(0)).addcmul_(rows, rows);
  const double norm = rows.norm().item<double>();
  square_norms.add_(norm * norm);
}

ExactBlock MatrixSum::finish(int64_t b, bool symmetric) {
  ExactBlock out;
  out.kind = kind;
  out.matrix = total.div_(b);
  const double norm = out.matrix.norm().item<double>();
  if (!symmetric && norm > 0) out.symmetry_error = (out.matrix - out.matrix.t()).norm().item<double>() / norm;
  if (b < 2) return out;
  const double spread = std::max(0.0, square_norms.item<double>() - static_cast<double>(b) * norm * norm);
  if (norm > 0) out.data_error = std::sqrt(spread / static_cast<double>(b * (b - 1))) / norm;
  if (squares.defined())
    out.standard_error = squares.div_(b).sub_(out.matrix.square()).clamp_min_(0).div_(b - 1).sqrt_();
  return out;
}

ExactTotals::ExactTotals(const ExactOptions& options, int64_t n, int64_t b)
    : gradient(at::zeros({n}, at::kDouble)),
      losses(at::zeros({b}, at::kDouble)),
      columns(std::get<0>(at::randperm(n, at::detail::createCPUGenerator(kColumnSeed), at::kLong)
                              .slice(0, 0, precision_columns(n))
                              .sort())),
      sample(at::zeros({columns.numel(), n}, at::kDouble)),
      primal_seconds(at::zeros({}, at::kDouble)) {
  for (const Curvature kind : options.curvatures) matrices.emplace_back(kind, n, options.full_errors && b >= 2);
}

void ExactTotals::add(const Unit& unit, const Tensor& batch_losses, const Tensor& batch_gradient) {
  losses.narrow(0, unit.first_window, unit.windows).copy_(batch_losses);
  require_finite(losses.narrow(0, unit.first_window, unit.windows), unit.first_window);
  gradient.add_(batch_gradient.cpu());
}

void ExactTotals::add(const std::vector<Tensor>& rows, int64_t begin, int64_t window) {
  for (size_t i = 0; i < matrices.size(); ++i) matrices[i].add(rows[i], begin);
  if (window != 0) return;
  for (int64_t c = 0; c < columns.numel(); ++c)
    if (const int64_t row = columns[c].item<int64_t>() - begin; row >= 0 && row < rows[0].size(0))
      sample[c].copy_(rows[0][row]);
}

NamedTensors ExactTotals::sums() const {
  NamedTensors out = {
      {"gradient", gradient}, {"losses", losses}, {"sample", sample}, {"primal_seconds", primal_seconds}};
  for (const MatrixSum& sum : matrices) {
    const std::string name = to_string(sum.kind);
    out.emplace_back(name, sum.total);
    if (sum.squares.defined()) out.emplace_back(name + ".squares", sum.squares);
    out.emplace_back(name + ".square_norms", sum.square_norms);
  }
  return out;
}

}  // namespace hesper
