#pragma once
// The values of a run in the order in which its passes make and drop them, as forecasts count them.
#include <set>
#include <vector>

#include "run/forecast.h"

namespace hesper {

/// Values alive, counted once.
class Live {
 public:
  explicit Live(const std::vector<int64_t>& width) : width_(width) {}
  void add(int value) {
    if (alive_.insert(value).second) sum_ += width_[value];
  }
  void drop(int value) {
    if (alive_.erase(value) > 0) sum_ -= width_[value];
  }
  int64_t width() const { return sum_; }

 private:
  const std::vector<int64_t>& width_;
  std::set<int> alive_;
  int64_t sum_ = 0;
};

/// A run as one of its devices sees it: what the others do takes nothing there.
struct Walk {
  const RunShapes& run;
  at::Device here;
  std::vector<char> active;         // per value
  std::vector<int64_t> width, all;  // per value: of an active one (0 otherwise), of any
  std::vector<OpCost> ops;
  std::vector<int64_t> kept, inside;  // per segment: kept_tangent; widths of the values made in it
  int64_t widest = 0, head_width = 0, words = 0;

  Walk(const RunShapes& run, at::Device here);
  bool mine(const Segment& s) const { return s.device == here; }
  bool mine(const Op& op) const { return op.device == here; }
  bool on(int op) const { return active[run.program->ops()[op]->output]; }
  bool last(const Segment& s) const { return &s == &run.program->segments().back(); }
  size_t number(const Segment& s) const { return static_cast<size_t>(&s - run.program->segments().data()); }
};

/// Elements a token and direction at the peak of a Gram pass: border values alone.
int64_t gram_tangents(const Walk& w);
/// Elements a token and direction at the peak of a two-pass product: what goes back reads, and the borders either way.
int64_t two_pass_tangents(const Walk& w, bool recompute);
/// The same of adjoints alone: the borders on the way back.
int64_t adjoint_tangents(const Walk& w);

}  // namespace hesper
