#include "run/krylov.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "run/stop_rule.h"

namespace hesper {
namespace {

using at::Tensor;
constexpr int64_t kLargestBlock = 32;
constexpr int64_t kPilot = 4;  // probes of each window behind V(r)
constexpr double kInfinite = std::numeric_limits<double>::infinity();

class Growth {
 public:
  Growth(const DiagJob& job, Estimate& e, PrimalBatches& primal, const Parameters& parameters, int64_t directions,
         const OnChunk& on_chunk)
      : job_(job),
        e_(e),
        primal_(primal),
        parameters_(parameters),
        directions_(directions),
        on_chunk_(on_chunk),
        block_(krylov_block(job.options.probes)) {}

  Tensor run(int64_t room) {
    Deflation& basis = e_.deflation.emplace(room, size(), options());
    Tensor next = start();
    double before = 0;
    for (int64_t looked = 0, target = block_; basis.room() > 0 && left() >= block_ + kPilot + least_probes;) {
      const Tensor block = basis.next_block(next);
      if (block.size(0) == 0) break;  // nothing is left of the mean
      next = join(block);
      if (basis.size() < target) continue;
      const auto [v, needed] = look();
      e_.basis["variances"].push_back({basis.size(), v});
      target = 2 * basis.size();
      if (looked > 0) {
        const double a = decay(looked, before, basis.size(), v);
        target = std::min(target, best_basis(a, basis.size(), static_cast<double>(left()), needed));
        if (target <= basis.size()) break;
      }
      looked = basis.size(), before = v;
    }
    e_.basis["vectors"] = basis.size();
    e_.basis["products"] = e_.spent;
    return first_;
  }

 private:
  int64_t size() const { return e_.group.selection.size(); }
  int64_t left() const { return job_.options.probes - e_.spent; }
  at::TensorOptions options() const { return at::device(job_.options.device).dtype(job_.options.precision); }
  Tensor zeros(int64_t rows) const { return at::zeros({rows, size()}, options()); }

  /// f(s, pass, place, first, count) for all windows and chunks of `rows` directions.
  template <class F>
  void chunks(int64_t rows, F f) {
    for_windows(job_, e_.group, primal_, parameters_, [&](int64_t s, const TangentPass& pass, int64_t place) {
      for (int64_t k = 0; k < rows; k += directions_) {
        const int64_t count = std::min(directions_, rows - k);
        f(s, pass, place, k, count);
        on_chunk_(count);
      }
    });
    e_.spent += rows;
  }

  /// Mean of H_s v over the windows, v (c, n) of +-1 the same for all.
  Tensor start() {
    Tensor mean = zeros(block_);
    const auto number = job_.windows.index[0];
    chunks(block_, [&](int64_t s, const TangentPass& pass, int64_t place, int64_t k, int64_t count) {
      const Tensor v = rademacher(e_.group.selection, job_.options.seed, number, int64_t{basis_probes} + k, count,
                                  job_.options.precision);
      const Tensor h =
          pass.product(Directions::dense(e_.group.selection, v, v.scalar_type()), place, job_.options.curvature);
      require_finite(h, job_.windows.index[static_cast<size_t>(s)]);
      mean.narrow(0, k, count).add_(h, 1 / static_cast<double>(job_.b()));
      if (s == 0 && k == 0) first_ = h.slice(0, 0, check_directions).cpu().mul(v.slice(0, 0, check_directions));
    });
    return mean;
  }

  /// Products of the block with every window, what is known by them, and the mean that the next block comes from.
  Tensor join(const Tensor& block) {
    Tensor mean = zeros(block.size(0));
    chunks(block.size(0), [&](int64_t s, const TangentPass& pass, int64_t place, int64_t k, int64_t count) {
      const Tensor q = block.narrow(0, k, count);
      const Tensor h =
          pass.product(Directions::dense(e_.group.selection, q, q.scalar_type()), place, job_.options.curvature);
      require_finite(h, job_.windows.index[static_cast<size_t>(s)]);
      const Deflation::Known known = e_.deflation->known(block, k, h);
      e_.all.shift(s, known.diagonal.cpu());
      mean.narrow(0, k, count).add_(known.rest, 1 / static_cast<double>(job_.b()));
    });
    e_.deflation->join(block);
    return mean;
  }

  struct Look {
    double variance, needed;  // V(r); probes that the rule asks for
  };
  Look look() {
    TensorMoments pilot(e_.group.selection, e_.all.units, job_.b());
    const int64_t first = int64_t{pilot_probes} + e_.spent;
    chunks(kPilot, [&](int64_t s, const TangentPass& pass, int64_t place, int64_t k, int64_t count) {
      if (k == 0) pilot.begin_visit(s);
      pilot.add(
          draw(job_, pass, e_.group.selection, s, place, first + k, count, job_.options.precision, &*e_.deflation).z);
    });
    Look out{0, job_.options.rule ? 0 : kInfinite};
    for (size_t i = 0; i < pilot.entries.size(); ++i) {
      DiagonalBars entries = pilot.entries[i].bars(), sums = pilot.sums[i].bars();
      out.variance += entries.probe.sum().item<double>() * static_cast<double>(kPilot * job_.b());
      entries.mean.add_(e_.all.entries[i].mean_shift());
      sums.mean.add_(e_.all.sums[i].mean_shift());
      if (job_.options.rule)
        out.needed = std::max(out.needed, needed_probes(*job_.options.rule, entries, sums, *e_.all.units[i]));
    }
    return out;
  }

  const DiagJob& job_;
  Estimate& e_;
  PrimalBatches& primal_;
  const Parameters& parameters_;
  int64_t directions_;
  const OnChunk& on_chunk_;
  int64_t block_;
  Tensor first_;
};

}  // namespace

int64_t krylov_block(int64_t products) { return std::clamp<int64_t>(products / 16, 2, kLargestBlock); }

int64_t most_basis(int64_t products, int64_t n) { return std::min(n, 3 * products / 4); }

double decay(int64_t r0, double v0, int64_t r1, double v1) {
  if (v1 <= 0 || r1 <= r0) return 0;
  return std::max(0.0, std::log(v0 / v1) / std::log(static_cast<double>(r1) / static_cast<double>(r0)));
}

int64_t best_basis(double a, int64_t r, double left, double needed) {
  if (a <= 0) return 0;
  const auto size = static_cast<double>(r);
  const double with_all = (left + size) * a / (1 + a);
  const double for_rule = std::pow(a * needed, 1 / (1 + a)) * std::pow(size, a / (1 + a));
  return static_cast<int64_t>(std::min(with_all, for_rule));
}

Tensor grow_basis(const DiagJob& job, Estimate& e, PrimalBatches& primal, const Parameters& parameters,
                  int64_t directions, int64_t room, const OnChunk& on_chunk) {
  return Growth(job, e, primal, parameters, directions, on_chunk).run(room);
}

}  // namespace hesper
