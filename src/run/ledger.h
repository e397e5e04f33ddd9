#pragma once
// The work of a run as steps of its items (windows, or batches of them) in a fixed order: what is done, what is added
// up, and the snapshots between two steps. Results are fp64 sums in this order, so the same plan gives the same bits.
//   Ledger ledger(control, b);
//   ledger.begin({plan_choices(plan), {}, steps, sums});  // of every item; sums: all that the steps add to
//   for (int64_t s = 0; s < b; ++s)
//     for (each of the item's steps)
//       if (ledger.next(s)) compute, add, ledger.end(s, products);
// A run of ordered stages begins each of them so, with what its next step needs (such as a basis) among the tensors and
// in the note; `resumed` says in which of them a snapshot was taken. What a stage needs of all items of the one before
// waits for `gather`, after which rank 0 knows it (and tells: RunControl::decided, Ranks::share).
#include <cstdint>
#include <vector>

#include "run/plan.h"
#include "run/run_control.h"

namespace hesper {

struct Unit {
  int64_t first_window, windows;  // [first_window, first_window + windows)
  int64_t begin, end;             // directions
};

/// Batches of at most `batch` windows outermost, chunks of at most `directions` inside each.
std::vector<Unit> make_units(int64_t windows, int64_t batch, int64_t n, int64_t directions);

class Ledger {
 public:
  struct Stage {
    nlohmann::json plan;        // what the planner chose (plan_choices)
    nlohmann::json note;        // of this stage; null where there is one only
    int64_t steps = 0;          // of every item
    NamedTensors tensors = {};  // what the steps add to, by handles; ranks' add up
    NamedTensors fixed = {};    // the rest of the state: the same in every rank
  };

  /// Takes control.snapshots->from. together: items of a batch, which one process does. `control` outlives it. Throws
  /// std::invalid_argument where there are fewer batches than parts or ranks.
  Ledger(const RunControl& control, int64_t items, int64_t together = 1);

  const RunControl& control() const { return control_; }
  /// The note of the stage that the run goes on in; null where it begins.
  const nlohmann::json& resumed() const { return resumed_; }
  /// Fills the tensors of the stage that goes on; nothing is done of any other. Throws std::runtime_error where a
  /// snapshot has not these tensors, or ranks have planned other steps.
  void begin(Stage stage);

  /// Counts a step of items [item, item + count), which go together: true where it is to be done here now. Throws
  /// Interrupted, the state saved, where the run is to stop.
  bool next(int64_t item, int64_t count = 1);
  /// Counts so many steps of each, where all of them are done already or are not for this process; else none.
  bool skip(int64_t item, int64_t steps, int64_t count = 1);
  /// True in the first step of an item.
  bool is_first(int64_t item) const { return met_[static_cast<size_t>(item)] == 1; }
  /// After what the step found has been added.
  void end(int64_t item, double products, int64_t count = 1);

  /// Inside a long step whose parts add to tensors of the state too, one of which says how far it is: so many products
  /// more. As between steps.
  void inside(double products);

  /// After all steps of a stage which others follow: of many ranks rank 0 has the sums of all. Throws Interrupted.
  void gather();
  /// After all steps: as gather. Throws PartDone where this process had a part only or is another rank,
  /// std::runtime_error where the part's file cannot be written.
  void finish();

  /// Throws Interrupted, the state saved, where the run is to stop.
  void stop_here();
  void set_bar(double bar) { progress_.bar = bar; }
  double seconds() const { return before_ + seconds_since(start_); }
  int64_t products() const { return static_cast<int64_t>(products_.item<double>()); }

 private:
  bool is_mine(int64_t item) const { return first_ <= item && item < end_; }
  double done(int64_t item) const {
    return done_.const_data_ptr<double>()[item] + elsewhere_.const_data_ptr<double>()[item];
  }
  void require_same(const Stage& stage) const;
  void deal();
  bool save();
  void save_if_due();
  Ranks::Order meet();
  void follow(Ranks::Order order);
  void end_together(Ranks::Order last);
  void tell(double products);

  const RunControl& control_;
  int64_t together_;
  int64_t first_ = 0, end_ = 0;  // items that are this process's
  std::optional<RunState> from_;
  nlohmann::json resumed_;
  Stage stage_;
  Tensor done_, products_;    // (items) steps of this stage that are done; ()
  Tensor elsewhere_;          // (items) steps whose sums are in rank 0
  std::vector<int64_t> met_;  // steps of this stage, done or passed over
  bool gathered_ = false;     // and nothing has begun since
  Progress progress_;
  double before_ = 0;  // seconds of those who came before
  Clock::time_point start_ = Clock::now();
};

/// The choices of a plan that a run which goes on must keep, and options that make the planner choose so again.
nlohmann::json plan_choices(const Plan& plan);
void keep_choices(EngineOptions& options, const nlohmann::json& choices);
/// Those of the state that `control` begins from, if there is one.
template <class Options>
Options resumed_options(Options options, const RunControl& control) {
  if (control.snapshots && control.snapshots->from) keep_choices(options, control.snapshots->from->plan);
  return options;
}

}  // namespace hesper
