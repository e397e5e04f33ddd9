#include "run/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "run/configuration.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

template <typename... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw std::invalid_argument(fmt::format(format, std::forward<Args>(args)...));
}

std::string say_items(int64_t first, int64_t end) {
  return end - first == 1 ? fmt::format("window {}", first) : fmt::format("windows {} to {}", first, end - 1);
}

int64_t items_of(const PartFile& part) {
  for (const auto& [name, tensor] : part.saved.state.tensors)
    if (name == "done" && tensor.dim() == 1) return tensor.numel();
  throw std::runtime_error(fmt::format("{}: not a part of a run", part.name));
}

void require_finished(const PartFile& part) {
  const RunState& state = part.saved.state;
  const at::Tensor& done = state.tensor("done", {items_of(part)});
  if (state.end > done.numel() || state.first == state.end || state.steps == 0)
    throw std::runtime_error(fmt::format("{}: not a part of a run", part.name));
  const auto steps = static_cast<double>(state.steps);
  const at::Tensor own = done.slice(0, state.first, state.end);
  if (!own.eq(steps).all().item<bool>())
    refuse("{}: unfinished, {:.0f} of {:.0f} steps are done; run that part again", part.name, own.sum().item<double>(),
           steps * static_cast<double>(own.numel()));
}

void require_same_run(const PartFile& one, const PartFile& other) {
  if (const std::string what = first_difference(one.saved.configuration, other.saved.configuration); !what.empty())
    refuse("{} is of another run than {}: {}", other.name, one.name, what);
  if (one.saved.state.plan != other.saved.state.plan || one.saved.state.steps != other.saved.state.steps)
    refuse("{} has another plan than {}: {}", other.name, one.name,
           first_difference(one.saved.state.plan, other.saved.state.plan));
}

/// parts: in the order of their windows.
void require_partition(const std::vector<PartFile>& parts) {
  int64_t met = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const RunState& state = parts[i].saved.state;
    if (state.first < met)
      refuse("{} and {} both hold {}", parts[i - 1].name, parts[i].name,
             say_items(state.first, std::min(met, state.end)));
    if (state.first > met) refuse("{} missing: no part holds them", say_items(met, state.first));
    met = state.end;
  }
  if (const int64_t items = items_of(parts[0]); met < items)
    refuse("{} missing: no part holds them", say_items(met, items));
}

}  // namespace

SavedState merge_parts(const std::vector<fs::path>& files) {
  std::vector<PartFile> parts;
  for (const fs::path& file : files) parts.push_back({file.string(), read_state(file)});
  return merge_parts(std::move(parts));
}

SavedState merge_parts(std::vector<PartFile> parts) {
  for (const PartFile& part : parts) {
    if (part.saved.origin.is_null())
      throw std::runtime_error(fmt::format("{}: the snapshot of a whole run, not a part", part.name));
    require_finished(part);
    require_same_run(parts[0], part);
  }
  std::stable_sort(parts.begin(), parts.end(),
                   [](const PartFile& a, const PartFile& b) { return a.saved.state.first < b.saved.state.first; });
  require_partition(parts);
  SavedState out = std::move(parts[0].saved);
  for (size_t i = 1; i < parts.size(); ++i) {
    const RunState& more = parts[i].saved.state;
    for (auto& [name, tensor] : out.state.tensors) tensor.add_(more.tensor(name, tensor.sizes()));
    out.state.seconds += more.seconds;
    out.state.end = more.end;
  }
  return out;
}

}  // namespace hesper
