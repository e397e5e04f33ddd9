#include "run/ledger.h"

#include <fmt/format.h>

#include <algorithm>

namespace hesper {

std::vector<Unit> make_units(int64_t windows, int64_t batch, int64_t n, int64_t directions) {
  std::vector<Unit> units;
  for (int64_t w = 0; w < windows; w += batch)
    for (int64_t k = 0; k < n; k += directions)
      units.push_back({w, std::min(batch, windows - w), k, std::min(k + directions, n)});
  return units;
}

Ledger::Ledger(const RunControl& control, int64_t items, int64_t together)
    : control_(control),
      done_(at::zeros({items}, at::kDouble)),
      products_(at::zeros({}, at::kDouble)),
      met_(static_cast<size_t>(items), 0) {
  const int64_t batches = (items + together - 1) / together;
  const auto [number, of] = control.part;
  if (of > batches) {
    const std::string things = together > 1 ? fmt::format("batch{} of {} windows", batches > 1 ? "es" : "", together)
                                            : std::string(batches > 1 ? "windows" : "window");
    throw std::invalid_argument(fmt::format("--parts {}/{}: there {} only {} {} to share", number, of,
                                            batches > 1 ? "are" : "is", batches, things));
  }
  first_ = batches * (number - 1) / of * together;
  end_ = std::min(batches * number / of * together, items);
  if (!control.snapshots) return;
  from_.swap(control.snapshots->from);
  if (!from_) return;
  resumed_ = from_->stage;
  before_ = from_->seconds;
}

void Ledger::begin(Stage stage) {
  stage_ = std::move(stage);
  stage_.tensors.insert(stage_.tensors.end(), control_.beside.begin(), control_.beside.end());
  stage_.tensors.insert(stage_.tensors.end(), {{"done", done_}, {"products", products_}});
  std::fill(met_.begin(), met_.end(), 0);
  done_.zero_();
  progress_.units += stage_.steps * (end_ - first_);
  if (!from_) return;
  for (auto& [name, tensor] : stage_.tensors) tensor.copy_(from_->tensor(name, tensor.sizes()));
  from_.reset();  // as large as the tensors
}

bool Ledger::next(int64_t item, int64_t count) {
  if (!is_mine(item)) return false;
  for (int64_t i = item; i < item + count; ++i) ++met_[static_cast<size_t>(i)];
  if (met_[static_cast<size_t>(item)] <= done_.const_data_ptr<double>()[item]) {
    progress_.done += count;
    return false;
  }
  stop_here();
  return true;
}

bool Ledger::skip(int64_t item, int64_t steps, int64_t count) {
  if (!is_mine(item)) return true;
  if (static_cast<double>(met_[static_cast<size_t>(item)] + steps) > done_.const_data_ptr<double>()[item]) return false;
  for (int64_t i = item; i < item + count; ++i) met_[static_cast<size_t>(i)] += steps;
  progress_.done += steps * count;
  return true;
}

void Ledger::end(int64_t item, double products, int64_t count) {
  done_.narrow(0, item, count).add_(1);
  progress_.done += count;
  tell(products);
}

void Ledger::inside(double products) {
  tell(products);
  stop_here();
}

void Ledger::tell(double products) {
  products_.add_(products);
  progress_.products = products_.item<double>();
  progress_.seconds = seconds();
  if (control_.on_progress) control_.on_progress(progress_);
  if (control_.snapshots && control_.snapshots->due()) save();
}

void Ledger::finish() {
  if (control_.part.whole()) return;
  const std::filesystem::path& file = control_.snapshots->file();
  if (!save()) throw std::runtime_error(fmt::format("cannot write {}", file.string()));
  throw PartDone(file);
}

void Ledger::stop_here() {
  if (!control_.stop || !control_.stop()) return;
  throw control_.snapshots && save() ? Interrupted(control_.snapshots->file()) : Interrupted();
}

bool Ledger::save() {
  if (stage_.tensors.empty()) return false;  // nothing has begun: what is on the disk may know more
  return control_.snapshots->save({stage_.plan, stage_.note, seconds(), first_, end_, stage_.steps, stage_.tensors});
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
  options.primal = choices.at("primal_precision") == "fp64" ? at::kDouble : at::kFloat;
}

}  // namespace hesper
