#include "hessian/diagonal_moments.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "ops/host_copy.h"

namespace hesper {

int64_t window_groups(int64_t windows) { return std::min(windows, most_window_groups); }
int64_t group_of(int64_t s, int64_t windows) { return s * window_groups(windows) / windows; }

at::Tensor DiagonalBars::data() const { return probe.defined() && total.defined() ? total - probe : at::Tensor(); }

DiagonalBars DiagonalBars::slice(int64_t begin, int64_t end) const {
  DiagonalBars out = *this;
  for (at::Tensor* t : {&out.mean, &out.probe, &out.total})
    if (t->defined()) *t = t->slice(0, begin, end);
  return out;
}

DiagonalMoments::DiagonalMoments(int64_t n, int64_t windows, Samples samples)
    : n_(n),
      windows_(windows),
      samples_(samples),
      groups_(at::zeros({window_groups(windows), n}, at::kDouble)),
      squares_(at::zeros({n}, at::kDouble)),
      visit_(at::zeros({n}, at::kDouble)),
      counts_(at::zeros({windows}, at::kDouble)),
      visits_(at::zeros({windows}, at::kDouble)),
      at_(at::zeros({2}, at::kDouble)) {}

void DiagonalMoments::begin_visit(int64_t window) {
  visits_[window] += 1;  // throws where there is no such window
  visit_.zero_();
  at_.zero_();
  at_[0] = window;
}

SampleMoments moments_of(const at::Tensor& z) {
  const auto [variance, mean] = at::var_mean(z.to(at::kDouble), at::IntArrayRef{0}, at::Scalar(0), false);
  return {z.size(0), mean, variance.mul(static_cast<double>(z.size(0)))};
}

// Welford: mean_j = mean + (z - mean) / j, squares += (z - mean) (z - mean_j).
void DiagonalMoments::add(const at::Tensor& z) {
  if (z.dim() != 2 || z.size(1) != n_)
    throw std::invalid_argument(
        fmt::format("[moments] {} samples of {} entries, {} expected", z.size(0), z.size(-1), n_));
  if (!z.is_cpu()) return add(moments_of(z));
  const at::Tensor rows = z.to(at::kDouble).contiguous();
  const int64_t count = rows.size(0);
  const double* sample = rows.const_data_ptr<double>();
  double* at = at_.mutable_data_ptr<double>();
  const auto window = static_cast<int64_t>(at[0]), in_visit = static_cast<int64_t>(at[1]);
  double* group = groups_.mutable_data_ptr<double>() + group_of(window, windows_) * n_;
  double* mean = visit_.mutable_data_ptr<double>();
  double* squares = squares_.mutable_data_ptr<double>();
  at::parallel_for(0, n_, 1 << 14, [&](int64_t low, int64_t high) {
    for (int64_t k = 0; k < count; ++k) {
      const double* x = sample + k * n_;
      const double share = 1.0 / static_cast<double>(in_visit + k + 1);
      for (int64_t i = low; i < high; ++i) {
        const double from_mean = x[i] - mean[i];
        mean[i] += from_mean * share;
        squares[i] += from_mean * (x[i] - mean[i]);
        group[i] += x[i];
      }
    }
  });
  at[1] += static_cast<double>(count);
  counts_[window] += count;
}

// With j samples before and K here, d = mean' - mean: mean += d K / (j + K), squares += squares' + d^2 j K / (j + K).
void DiagonalMoments::add(const SampleMoments& samples) {
  const at::Tensor means = on_host(samples.mean, true).contiguous(), more = on_host(samples.squares, true).contiguous();
  const double *mine = means.const_data_ptr<double>(), *own = more.const_data_ptr<double>();
  double* at = at_.mutable_data_ptr<double>();
  const auto window = static_cast<int64_t>(at[0]);
  const auto count = static_cast<double>(samples.count);
  const double share = count / (at[1] + count), between = at[1] * share;
  double* group = groups_.mutable_data_ptr<double>() + group_of(window, windows_) * n_;
  double* mean = visit_.mutable_data_ptr<double>();
  double* squares = squares_.mutable_data_ptr<double>();
  at::parallel_for(0, n_, 1 << 14, [&](int64_t low, int64_t high) {
    for (int64_t i = low; i < high; ++i) {
      const double away = mine[i] - mean[i];
      mean[i] += away * share;
      squares[i] += own[i] + away * away * between;
      group[i] += mine[i] * count;
    }
  });
  at[1] += count;
  counts_[window] += samples.count;
}

void DiagonalMoments::shift(int64_t window, const at::Tensor& e) {
  if (!shifts_.defined()) shifts_ = at::zeros_like(groups_);
  shifts_[group_of(window, windows_)].add_(e.to(at::kCPU, at::kDouble));
}

NamedTensors DiagonalMoments::sums(const std::string& name, bool known) {
  NamedTensors out = {{name + ".groups", groups_}, {name + ".squares", squares_}, {name + ".visit", visit_},
                      {name + ".counts", counts_}, {name + ".visits", visits_},   {name + ".at", at_}};
  if (known && !shifts_.defined()) shifts_ = at::zeros_like(groups_);
  if (known) out.emplace_back(name + ".known", shifts_);
  return out;
}

at::Tensor DiagonalMoments::mean_shift() const {
  return shifts_.defined() ? shifts_.sum(0).div_(static_cast<double>(windows_)) : at::zeros({n_}, at::kDouble);
}

DiagonalBars DiagonalMoments::bars() const {
  const double *counts = counts_.const_data_ptr<double>(), *visits = visits_.const_data_ptr<double>();
  const auto m = static_cast<int64_t>(counts[0]), rounds = static_cast<int64_t>(visits[0]), groups = groups_.size(0);
  for (int64_t s = 0; s < windows_; ++s)
    if (counts[s] != counts[0] || visits[s] != visits[0] || m == 0)
      throw std::logic_error(fmt::format("[moments] window {} has {} samples, window 0 has {}", s, counts[s], m));
  const auto b = static_cast<double>(windows_), per_window = static_cast<double>(m);
  DiagonalBars out;
  out.windows = windows_, out.groups = groups, out.samples = m;
  out.mean = groups_.sum(0).div_(b * per_window).add_(mean_shift());
  if (samples_ == Samples::exact) {
    out.probe = at::zeros({n_}, at::kDouble);
  } else if (m > rounds) {
    // squares_ has m - rounds degrees of freedom in every window.
    out.probe = squares_ / (static_cast<double>(m - rounds) * per_window * b * b);
    out.probe_degrees = (m - rounds) * windows_;
  }
  if (windows_ < 2) return out;
  out.total = at::zeros({n_}, at::kDouble);
  std::vector<double> sizes(static_cast<size_t>(groups), 0);
  for (int64_t s = 0; s < windows_; ++s) sizes[static_cast<size_t>(group_of(s, windows_))] += 1;
  double shares = 0;  // sum_g w_g^2
  for (int64_t g = 0; g < groups; ++g) {
    const double size = sizes[static_cast<size_t>(g)], w = size / b;
    const at::Tensor away = groups_[g].div(size * per_window).sub_(out.mean);
    if (shifts_.defined()) away.add_(shifts_[g], 1 / size);
    out.total.addcmul_(away, away, w * w);
    shares += w * w;
  }
  out.total.div_(1 - shares);
  return out;
}

std::string to_string(Bar::State state) {
  switch (state) {
    case Bar::State::known:
      return "known";
    case Bar::State::below_probe_noise:
      return "below probe noise";
    case Bar::State::not_resolved:
      return "not resolved";
    default:
      return "unknown";
  }
}

std::string say_relative(const Bar& bar) {
  return bar.known() ? fmt::format("{:.3g}%", 100 * bar.value) : to_string(bar.state);
}

namespace {

using State = Bar::State;

Bar relative(double variance, double norm_squared) {
  if (norm_squared <= 0) return {variance == 0 && norm_squared == 0 ? State::known : State::not_resolved, 0};
  return {State::known, std::sqrt(variance / norm_squared)};
}

}  // namespace

RelativeBars relative_bars(const DiagonalBars& bars) {
  RelativeBars out;
  const double raw = bars.mean.square().sum().item<double>();
  out.norm = std::sqrt(raw);
  const bool noisy = bars.probe.defined(), several = bars.total.defined();
  const double probe = noisy ? bars.probe.sum().item<double>() : 0;
  const double spread = several ? bars.total.sum().item<double>() : 0, total = std::max(spread, probe);
  if (noisy) {
    out.probe = relative(probe, raw - probe);
    out.debiased_norm = raw - probe > 0 ? Bar{State::known, std::sqrt(raw - probe)} : Bar{State::not_resolved, 0};
  }
  if (several) out.total = relative(total, raw - total);
  if (noisy && several)
    out.data = spread > probe || probe == 0 ? relative(spread - probe, raw - total) : Bar{State::below_probe_noise, 0};
  return out;
}

RelativeBars relative_bars(const DiagonalBars& bars, int64_t begin, int64_t end) {
  return relative_bars(bars.slice(begin, end));
}

EntryErrors entry_errors(const DiagonalBars& bars) {
  EntryErrors out;
  if (bars.probe.defined()) out.probe = bars.probe.sqrt();
  if (bars.total.defined()) out.total = bars.total.sqrt();
  if (!bars.probe.defined() || !bars.total.defined()) return out;
  out.total = at::maximum(bars.total, bars.probe).sqrt();
  const at::Tensor data = bars.data(), below = data.le(0).logical_and(bars.probe.gt(0));
  out.data = data.clamp_min(0).sqrt().masked_fill(below, std::numeric_limits<double>::quiet_NaN());
  return out;
}

}  // namespace hesper
