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

enum class Step { start, join, look, done };

class Growth {
 public:
  Growth(const DiagJob& job, Estimate& e, PrimalBatches& primal, const Parameters& parameters, const RunForm& form,
         Ledger& ledger, const KrylovState& state)
      : job_(job),
        e_(e),
        primal_(primal),
        parameters_(parameters),
        form_(form),
        ledger_(ledger),
        state_(state),
        block_(krylov_block(job.options.probes)) {}

  void run(int64_t room) {
    const nlohmann::json& at = ledger_.resumed();
    Deflation& basis = e_.deflation.emplace(at.is_null() ? room : at.at("room").get<int64_t>(), size(), options());
    target_ = block_;
    const int64_t rows = resume(at);
    if (step_ == Step::done) return;
    Tensor next = step_ == Step::start ? start() : zeros(rows);
    // A block that joins or a look at the basis, where the run goes on in it.
    for (bool inside = step_ != Step::start; inside || (basis.room() > 0 && left() >= block_ + kPilot + least_probes);
         inside = false) {
      if (!inside || step_ == Step::join) {
        const Tensor block = inside ? zeros(rows) : next_block(next);
        if (block.size(0) == 0) break;  // nothing is left of the mean
        next = join(block);
        if (basis.size() < target_) continue;
      }
      const auto [v, needed] = look(next);
      e_.basis["variances"].push_back({basis.size(), v});
      target_ = 2 * basis.size();
      if (looked_ > 0) {
        const double a = decay(looked_, before_, basis.size(), v);
        target_ = std::min(target_, best_basis(a, basis.size(), static_cast<double>(left()), needed));
        if (target_ <= basis.size()) break;
      }
      looked_ = basis.size(), before_ = v;
    }
    e_.basis["vectors"] = basis.size();
    e_.basis["products"] = e_.spent;
  }

 private:
  int64_t size() const { return e_.group.selection.size(); }
  int64_t left() const { return job_.options.probes - e_.spent; }
  at::TensorOptions options() const { return at::device(job_.options.device).dtype(job_.options.precision); }
  Tensor zeros(int64_t rows) const { return at::zeros({rows, size()}, options()); }

  /// Where a snapshot was taken; hands back the rows of its block.
  int64_t resume(const nlohmann::json& at) {
    if (at.is_null()) return 0;
    e_.basis = at.at("basis");
    e_.spent = at.at("spent").get<int64_t>();
    e_.deflation->restore(at.at("size").get<int64_t>(), at.at("scale").get<double>());
    step_ = Step::done;
    if (!at.contains("step")) return 0;
    step_ = static_cast<Step>(at.at("step").get<int>());
    looked_ = at.at("looked").get<int64_t>(), target_ = at.at("target").get<int64_t>();
    before_ = at.at("before").get<double>();
    return at.at("rows").get<int64_t>();
  }

  /// fixed: beside the basis, the same in every rank.
  void begin(Step step, int64_t rows, int64_t products, const NamedTensors& more, const NamedTensors& fixed = {}) {
    nlohmann::json note = basis_note(e_);
    note.update({{"step", static_cast<int>(step)},
                 {"looked", looked_},
                 {"target", target_},
                 {"before", before_},
                 {"rows", rows}});
    NamedTensors tensors = state_.tensors;
    tensors.insert(tensors.end(), more.begin(), more.end());
    Ledger::Stage stage{state_.plan, note, chunks_of(products, form_.directions), tensors, fixed};
    if (e_.deflation->size() > 0) stage.fixed.emplace_back("q", e_.deflation->rows());
    ledger_.begin(std::move(stage));
  }

  /// f(s, pass, place, first, count) for all windows and chunks of `rows` directions, whose sums rank 0 has then.
  template <class F>
  void chunks(int64_t rows, const Tensor& losses, F f) {
    for (int64_t s = 0; s < job_.b(); ++s)
      for_chunks(
          job_, e_.group, primal_, parameters_, ledger_, losses, s, rows, form_.directions,
          [&](const TangentPass& pass, int64_t place, int64_t k, int64_t count) { f(s, pass, place, k, count); });
    ledger_.gather();
    e_.spent += rows;
  }

  /// The block that comes from the mean which rank 0 has.
  Tensor next_block(const Tensor& mean) {
    const RunControl& control = ledger_.control();
    Tensor block;
    const nlohmann::json rows = control.decided([&] {
      block = e_.deflation->next_block(mean);
      return block.size(0);
    });
    if (!block.defined()) block = zeros(rows.get<int64_t>());
    if (control.ranks) control.ranks->share(block);
    return block;
  }

  /// Mean of H_s v over the windows, v (c, n) of +-1 the same for all.
  Tensor start() {
    Tensor mean = zeros(block_);
    const auto number = job_.windows.index[0];
    begin(Step::start, block_, block_, {{"next", mean}});
    chunks(block_, state_.losses, [&](int64_t s, const TangentPass& pass, int64_t place, int64_t k, int64_t count) {
      const Tensor v = rademacher(e_.group.selection, job_.options.seed, number, int64_t{basis_probes} + k, count,
                                  job_.options.precision);
      const Tensor h = pass.product(Directions::dense(e_.group.selection, v, v.scalar_type()), place,
                                    job_.options.curvature, form_.recompute);
      require_finite(h, job_.windows.index[static_cast<size_t>(s)]);
      mean.narrow(0, k, count).add_(h, 1 / static_cast<double>(job_.b()));
      if (s == 0 && k == 0) {
        const int64_t rows = state_.first.size(0);
        state_.first.copy_(h.narrow(0, 0, rows).cpu().mul(v.narrow(0, 0, rows)));
      }
    });
    return mean;
  }

  /// Products of the block with every window, what is known by them, and the mean that the next block comes from.
  Tensor join(const Tensor& block) {
    Tensor mean = zeros(block.size(0));
    begin(Step::join, block.size(0), block.size(0), {{"next", mean}}, {{"block", block}});
    chunks(block.size(0), {}, [&](int64_t s, const TangentPass& pass, int64_t place, int64_t k, int64_t count) {
      const Tensor q = block.narrow(0, k, count);
      const Tensor h = pass.product(Directions::dense(e_.group.selection, q, q.scalar_type()), place,
                                    job_.options.curvature, form_.recompute);
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
  /// next: kept for the block after it.
  Look look(const Tensor& next) {
    TensorMoments pilot(e_.group.selection, e_.all.units, job_.b());
    NamedTensors kept = pilot.all_sums("pilot");
    kept.emplace_back("next", next);
    begin(Step::look, next.size(0), kPilot, kept);
    const int64_t first = int64_t{pilot_probes} + e_.spent;
    chunks(kPilot, {}, [&](int64_t s, const TangentPass& pass, int64_t place, int64_t k, int64_t count) {
      if (k == 0) pilot.begin_visit(s);
      pilot.add(draw(job_, pass, e_.group.selection, s, place, first + k, count, form_, &*e_.deflation).z);
    });
    const nlohmann::json seen = ledger_.control().decided([&] {
      double variance = 0, needed = job_.options.rule ? 0 : kInfinite;
      for (size_t i = 0; i < pilot.entries.size(); ++i) {
        DiagonalBars entries = pilot.entries[i].bars(), sums = pilot.sums[i].bars();
        variance += entries.probe.sum().item<double>() * static_cast<double>(kPilot * job_.b());
        entries.mean.add_(e_.all.entries[i].mean_shift());
        sums.mean.add_(e_.all.sums[i].mean_shift());
        if (job_.options.rule)
          needed = std::max(needed, needed_probes(*job_.options.rule, entries, sums, *e_.all.units[i]));
      }
      return nlohmann::json{{"variance", variance},
                            {"needed", std::isfinite(needed) ? nlohmann::json(needed) : nullptr}};
    });
    return {seen.at("variance").get<double>(),
            seen.at("needed").is_null() ? kInfinite : seen.at("needed").get<double>()};
  }

  const DiagJob& job_;
  Estimate& e_;
  PrimalBatches& primal_;
  const Parameters& parameters_;
  const RunForm& form_;
  Ledger& ledger_;
  const KrylovState& state_;
  int64_t block_;
  Step step_ = Step::start;          // that a snapshot was taken in
  int64_t looked_ = 0, target_ = 0;  // sizes of the basis: at the last look, at the next one
  double before_ = 0;                // V at the last look
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

void grow_basis(const DiagJob& job, Estimate& e, PrimalBatches& primal, const Parameters& parameters,
                const RunForm& form, int64_t room, Ledger& ledger, const KrylovState& state) {
  Growth(job, e, primal, parameters, form, ledger, state).run(room);
}

nlohmann::json basis_note(const Estimate& e) {
  const Deflation& d = *e.deflation;
  return {
      {"basis", e.basis}, {"spent", e.spent}, {"size", d.size()}, {"room", d.size() + d.room()}, {"scale", d.scale()}};
}

}  // namespace hesper
