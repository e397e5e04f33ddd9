#include "run/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

namespace hesper {

std::vector<Unit> make_units(int64_t windows, int64_t batch, int64_t n, int64_t directions) {
  std::vector<Unit> units;
  for (int64_t w = 0; w < windows; w += batch)
    for (int64_t k = 0; k < n; k += directions)
      units.push_back({w, std::min(batch, windows - w), k, std::min(k + directions, n)});
  return units;
}

namespace {

/// Boundary `number` of `of` shares: whole batches, shares of work as equal as they allow.
int64_t boundary(const std::vector<double>& work, int64_t number, int64_t of) {
  double total = 0, before = 0;
  for (const double w : work) total += w;
  if (number == 0) return 0;
  int64_t batches = 0;
  for (const double w : work) {
    before += w;
    if (before * static_cast<double>(of) > total * static_cast<double>(number)) break;
    ++batches;
  }
  return batches;
}

}  // namespace

std::string RunControl::shared_by() const {
  if (ranks) return fmt::format("WORLD_SIZE {}", ranks->world());
  return part.whole() ? "" : fmt::format("--parts {}/{}", part.number, part.of);
}

nlohmann::json RunControl::decided(const std::function<nlohmann::json()>& find) const {
  if (!ranks) return find();
  if (!ranks->conducts()) {
    const std::string text = ranks->share("");
    if (!text.empty()) return nlohmann::json::parse(text);
    ranks->leave();
    throw Interrupted();
  }
  try {
    nlohmann::json found = find();
    ranks->share(found.dump());
    return found;
  } catch (...) {
    ranks->share("");
    ranks->leave();
    throw;
  }
}

Ledger::Ledger(const RunControl& control, int64_t items, int64_t together)
    : control_(control),
      together_(together),
      done_(at::zeros({items}, at::kDouble)),
      products_(at::zeros({}, at::kDouble)),
      elsewhere_(at::zeros({items}, at::kDouble)),
      met_(static_cast<size_t>(items), 0) {
  if (control.snapshots) from_.swap(control.snapshots->from);
  if (from_) {
    resumed_ = from_->stage;
    before_ = from_->seconds;
  }
  const int64_t batches = (items + together - 1) / together;
  if (const int64_t of = control.ranks ? control.ranks->world() : control.part.of; of > batches) {
    const std::string things = together > 1 ? fmt::format("batch{} of {} windows", batches > 1 ? "es" : "", together)
                                            : std::string(batches > 1 ? "windows" : "window");
    throw std::invalid_argument(fmt::format("{}: there {} only {} {} to share", control.shared_by(),
                                            batches > 1 ? "are" : "is", batches, things));
  }
}

// Ranks share what is left of a stage; a part is the same whatever is done of it.
void Ledger::deal() {
  const int64_t items = done_.size(0), batches = (items + together_ - 1) / together_;
  const int64_t of = control_.ranks ? control_.ranks->world() : control_.part.of;
  const int64_t number = control_.ranks ? control_.ranks->rank() + 1 : control_.part.number;
  std::vector<double> work(static_cast<size_t>(batches), 1);
  if (control_.ranks && from_) {
    const Tensor left = from_->steps - from_->tensor("done", {items});
    for (int64_t i = 0; i < batches; ++i)
      work[static_cast<size_t>(i)] = left.slice(0, i * together_, (i + 1) * together_).sum().item<double>();
  }
  first_ = boundary(work, number - 1, of) * together_;
  end_ = number == of ? items : std::min(boundary(work, number, of) * together_, items);
}

// The table of what is done counts rank 0's steps.
void Ledger::require_same(const Stage& stage) const {
  nlohmann::json mine = stage.plan;
  mine["steps"] = stage.steps;
  const nlohmann::json first = control_.decided([&] { return mine; });
  if (first != mine)
    throw std::runtime_error(
        fmt::format("rank {} of {} plans {}, rank 0 {}; --directions and --primal-precision settle it",
                    control_.ranks->rank(), control_.ranks->world(), mine.dump(), first.dump()));
}

void Ledger::begin(Stage stage) {
  if (control_.ranks) require_same(stage);
  stage_ = std::move(stage);
  stage_.tensors.insert(stage_.tensors.end(), control_.beside.begin(), control_.beside.end());
  stage_.tensors.insert(stage_.tensors.end(), {{"done", done_}, {"products", products_}});
  gathered_ = false;
  deal();
  std::fill(met_.begin(), met_.end(), 0);
  done_.zero_();
  elsewhere_.zero_();
  progress_.units += stage_.steps * (end_ - first_);
  if (!from_) return;
  const auto load = [&](NamedTensors& tensors) {
    for (auto& [name, tensor] : tensors) tensor.copy_(from_->tensor(name, tensor.sizes()));
  };
  if (control_.ranks && !control_.ranks->conducts()) {
    elsewhere_.copy_(from_->tensor("done", done_.sizes()));
  } else {
    load(stage_.tensors);
    load(stage_.fixed);
  }
  for (auto& [name, tensor] : stage_.fixed)
    if (control_.ranks) control_.ranks->share(tensor);
  from_.reset();  // as large as the tensors
}

bool Ledger::next(int64_t item, int64_t count) {
  if (!is_mine(item)) return false;
  for (int64_t i = item; i < item + count; ++i) ++met_[static_cast<size_t>(i)];
  if (static_cast<double>(met_[static_cast<size_t>(item)]) <= done(item)) {
    progress_.done += count;
    return false;
  }
  if (!control_.ranks) stop_here();
  return true;
}

bool Ledger::skip(int64_t item, int64_t steps, int64_t count) {
  if (!is_mine(item)) return true;
  if (static_cast<double>(met_[static_cast<size_t>(item)] + steps) > done(item)) return false;
  for (int64_t i = item; i < item + count; ++i) met_[static_cast<size_t>(i)] += steps;
  progress_.done += steps * count;
  return true;
}

void Ledger::end(int64_t item, double products, int64_t count) {
  done_.narrow(0, item, count).add_(1);
  progress_.done += count;
  tell(products);
  if (!control_.ranks)
    save_if_due();
  else if (met_[static_cast<size_t>(item)] == stage_.steps)
    meet();
}

void Ledger::inside(double products) {
  tell(products);
  if (control_.ranks) return;
  save_if_due();
  stop_here();
}

void Ledger::tell(double products) {
  products_.add_(products);
  progress_.products = products_.item<double>();
  progress_.seconds = seconds();
  if (control_.on_progress) control_.on_progress(progress_);
}

void Ledger::save_if_due() {
  if (control_.snapshots && control_.snapshots->due()) save();
}

Ranks::Order Ledger::meet() {
  Ranks& ranks = *control_.ranks;
  const bool stop = control_.stop && control_.stop();
  Ranks::Order order = Ranks::Order::none;
  if (!ranks.conducts()) {
    if (stop) ranks.ask_to_stop();
    order = ranks.look();
  } else {
    if (stop || ranks.asked_to_stop())
      order = Ranks::Order::stop;
    else if (control_.snapshots && control_.snapshots->due())
      order = Ranks::Order::snapshot;
    if (order != Ranks::Order::none) ranks.give(order);
  }
  follow(order);
  return order;
}

// Whatever the order is, rank 0 has all sums then.
void Ledger::follow(Ranks::Order order) {
  if (order == Ranks::Order::none) return;
  Ranks& ranks = *control_.ranks;
  if (!ranks.conducts()) elsewhere_.add_(done_);
  if (!gathered_)
    for (const auto& [name, tensor] : stage_.tensors) ranks.hand_over(tensor);
  gathered_ = order == Ranks::Order::gather;
  if (order == Ranks::Order::gather) return;
  if (order == Ranks::Order::snapshot) {
    if (ranks.conducts()) save();
    return;
  }
  ranks.leave();
  if (order == Ranks::Order::stop)
    throw ranks.conducts() && control_.snapshots && save() ? Interrupted(control_.snapshots->file()) : Interrupted();
  if (!ranks.conducts()) throw PartDone({});
}

/// Until all ranks are ready, or something else ends the run.
void Ledger::end_together(Ranks::Order last) {
  Ranks& ranks = *control_.ranks;
  ranks.ready();
  while (!ranks.conducts() || !ranks.all_ready()) {
    if (meet() == last) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ranks.give(last);
  follow(last);
}

void Ledger::gather() {
  if (control_.ranks) end_together(Ranks::Order::gather);
}

void Ledger::finish() {
  if (control_.ranks) {
    end_together(control_.more ? Ranks::Order::gather : Ranks::Order::finish);
    if (!control_.ranks->conducts()) throw PartDone({});
  }
  if (control_.part.whole()) return;
  const std::filesystem::path& file = control_.snapshots->file();
  if (!save()) throw std::runtime_error(fmt::format("cannot write {}", file.string()));
  throw PartDone(file);
}

void Ledger::stop_here() {
  if (control_.ranks && control_.more) return;  // when the ranks meet again
  if (!control_.stop || !control_.stop()) return;
  throw control_.snapshots && save() ? Interrupted(control_.snapshots->file()) : Interrupted();
}

bool Ledger::save() {
  if (stage_.tensors.empty()) return false;  // nothing has begun: what is on the disk may know more
  NamedTensors all = stage_.tensors;
  all.insert(all.end(), stage_.fixed.begin(), stage_.fixed.end());
  return control_.snapshots->save({stage_.plan, stage_.note, seconds(), first_, end_, stage_.steps, all});
}

nlohmann::json plan_choices(const Plan& plan) {
  return {{"pass", to_string(plan.pass)},
          {"directions", plan.directions},
          {"model_input_bs", plan.batch},
          {"primal_precision", plan.primal == at::kDouble ? "fp64" : "fp32"}};
}

void keep_choices(EngineOptions& options, const nlohmann::json& choices) {
  options.directions = choices.at("directions").get<int64_t>();
  options.batch = choices.at("model_input_bs").get<int64_t>();
  if (options.directions < 1 || options.batch < 1)
    throw std::runtime_error(fmt::format("the snapshot's plan has {} directions and {} windows together",
                                         options.directions, options.batch));
  options.primal = choices.at("primal_precision") == "fp64" ? at::kDouble : at::kFloat;
}

}  // namespace hesper
