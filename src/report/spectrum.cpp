#include "report/spectrum.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <stdexcept>

namespace hesper {
namespace {

// (n, n) float64 on the CPU.
at::Tensor square_matrix(const at::Tensor& h) {
  if (h.dim() != 2 || h.size(0) != h.size(1) || h.size(0) == 0) {
    throw std::invalid_argument(
        fmt::format("a spectrum needs a square matrix, not shape ({})", fmt::join(h.sizes(), ", ")));
  }
  return h.detach().to(at::kCPU, at::kDouble);
}

double relative_asymmetry(const at::Tensor& h) {
  const double norm = h.norm().item<double>();
  return norm == 0 ? 0 : (h - h.t()).norm().item<double>() / norm;
}

}  // namespace

double symmetry_error(const at::Tensor& h) { return relative_asymmetry(square_matrix(h)); }

Spectrum spectrum(const at::Tensor& h) {
  const at::Tensor matrix = square_matrix(h);
  if (!at::isfinite(matrix).all().item<bool>()) {
    throw std::runtime_error(fmt::format("a spectrum needs finite values; {} of {} are not",
                                         matrix.numel() - at::isfinite(matrix).sum().item<int64_t>(), matrix.numel()));
  }
  const at::Tensor eigenvalues = at::linalg_eigvalsh((matrix + matrix.t()) / 2);  // (n) ascending
  const at::Tensor magnitudes = eigenvalues.abs();
  const double trace_norm = magnitudes.sum().item<double>();
  const double squares = eigenvalues.square().sum().item<double>();

  Spectrum result;
  result.n = matrix.size(0);
  result.largest = eigenvalues[-1].item<double>();
  result.smallest = eigenvalues[0].item<double>();
  if (squares > 0) result.negative_share = eigenvalues.clamp_max(0).square().sum().item<double>() / squares;
  result.negative_diagonal = matrix.diagonal().lt(0).sum().item<int64_t>();
  result.negative_diagonal_share = static_cast<double>(result.negative_diagonal) / static_cast<double>(result.n);
  if (trace_norm > 0) {
    const at::Tensor shares = magnitudes / trace_norm;
    result.effective_rank = at::special_entr(shares).sum().exp().item<double>();
  }
  result.symmetry_error = relative_asymmetry(matrix);
  return result;
}

}  // namespace hesper
