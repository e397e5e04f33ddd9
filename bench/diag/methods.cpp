#include "methods.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Generator.h>

#include <algorithm>
#include <limits>

#include "hessian/hutchinson.h"
#include "hessian/split_samples.h"
#include "run/clock.h"

namespace hesper::bench {
namespace {

constexpr int64_t kRun = 32;  // of balanced signs

/// (count, n) of +-1, 16 of each in every run of 32 entries, in random order.
at::Tensor balanced_signs(int64_t n, uint64_t seed, int64_t first, int64_t count) {
  at::Tensor out = at::empty({count, n}, at::kFloat);
  for (int64_t k = 0; k < count; ++k) {
    auto generator = at::detail::createCPUGenerator(seed * 1000003 + static_cast<uint64_t>(first + k));
    const at::Tensor order = at::rand({n / kRun, kRun}, generator, at::kFloat).argsort(int64_t{1});
    out[k].copy_(order.lt(kRun / 2).to(at::kFloat).mul_(2).sub_(1).flatten());
  }
  return out;
}

/// (r, C) orthonormal rows that span the inputs of the layer.
at::Tensor input_basis(const Stand& stand) {
  const Tokens ids = make_tokens(stand.windows.ids, stand.windows.labels, at::kCPU);
  const at::Tensor x =
      run_layer_inputs(stand.program, stand.parameters, stand.layer.selection, ids, at::kDouble).inputs[0];
  const auto [u, s, vh] = at::linalg_svd(x.to(at::kDouble), false);
  const double rounding = std::numeric_limits<float>::epsilon() * static_cast<double>(std::max(x.size(0), x.size(1)));
  return vh.narrow(0, 0, s.gt(s[0] * rounding).sum().item<int64_t>());
}

}  // namespace

std::vector<Method> methods() {
  using Kind = Method::Kind;
  return {
      {.name = kReference, .balanced = true, .directions = 1},
      {.name = "hutchinson"},
      {.name = "split", .method = DiagMethod::split},
      {.name = "krylov", .kind = Kind::runs, .method = DiagMethod::krylov},
      {.name = "exact rows", .kind = Kind::exact},
  };
}

int64_t directions_of(const Stand& stand, const Method& method) {
  if (method.directions > 0) return method.directions;
  DiagOptions options = run_options();
  options.method = method.method;
  return plan_diag(*stand.model, stand.layer, unit_sums(*stand.model, stand.layer, 128), stand.windows, options)
      .directions;
}

at::Tensor draw(const Stand& stand, const Method& method, uint64_t seed, int64_t first, int64_t count) {
  const Selection& selection = stand.layer.selection;
  const TangentPass pass(stand.program, stand.parameters, selection, stand.tape);
  if (method.method == DiagMethod::split) {
    const AdjointStart start{AdjointStart::Kind::factor, seed, 0, first, count};
    return gauss_newton_samples(pass, start, 0) + residual_samples(pass, selection, start, 0, at::kFloat, at::kCPU);
  }
  const at::Tensor v = method.balanced ? balanced_signs(selection.size(), seed, first, count)
                                       : rademacher(selection, seed, 0, first, count, at::kFloat);
  return hutchinson_samples(pass, selection, v, 0, Curvature::hessian);
}

double products_of_a_sample(const Stand& stand, const Method& method) {
  if (method.method != DiagMethod::split) return 1;
  return 1 + pass_flops(stand, Pass::adjoint, 16) / pass_flops(stand, Pass::two_pass, 16);
}

RowCheck check_rows(const Stand& stand, int64_t most_rows) {
  const SelectedPart& part = stand.rows.selection.parts()[0];
  const int64_t columns = part.columns, all = part.rows.numel(), count = std::min(most_rows, all);
  const at::Tensor basis = input_basis(stand), v = basis.to(at::kFloat);
  const at::Tensor run = at::arange(columns) / kRun;
  const at::Tensor same = run.to(at::kLong).unsqueeze(0).eq(run.to(at::kLong).unsqueeze(1)).to(at::kDouble);
  RowCheck out{.rows = count, .directions = basis.size(0)};
  double bias = 0, norm = 0, mismatch = 0;
  std::vector<double> seconds;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t place = i * all / count;
    const Clock::time_point begin = Clock::now();
    Selection row;
    row.add(part.parameter, stand.shape(), part.rows[place] * columns + at::arange(columns));
    const Tape tape = narrowed(stand.tape, stand.program, row);
    const TangentPass pass(stand.program, stand.parameters, row, tape);
    const TangentPass::Forms forms = pass.second_order(Directions::dense(row, v, at::kFloat), 0);
    const at::Tensor form = forms.gauss_newton + forms.residual;
    const at::Tensor diagonal = form.mm(basis).mul_(basis).sum(0);
    seconds.push_back(seconds_since(begin));
    const at::Tensor h = basis.t().mm(form.mm(basis));
    bias += ((h * same).sum(1) - diagonal).div(kRun - 1).square().sum().item<double>();
    norm += diagonal.square().sum().item<double>();
    mismatch += (diagonal - stand.truth.narrow(0, place * columns, columns)).square().sum().item<double>();
  }
  std::sort(seconds.begin(), seconds.end());
  out.seconds = seconds[seconds.size() / 2];
  out.bias = std::sqrt(bias / norm);
  out.mismatch = std::sqrt(mismatch / norm);
  return out;
}

}  // namespace hesper::bench
