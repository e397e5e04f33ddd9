// Any bytes as the file of a snapshot or part. Its checksum refuses nearly every change, so the same bytes also stand
// for what lies behind it: a state's text and, after a zero byte, the tensor "done"; and such parts are merged. Read,
// or refused with std::runtime_error or (parts that do not belong together) std::invalid_argument.
#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>

#include "run/merge.h"

namespace {

void refused_or_done(const std::function<void()>& read) {
  try {
    read();
  } catch (const std::runtime_error&) {
  } catch (const std::invalid_argument&) {
  }
}

void check_state(const hesper::RunState& state) {
  if (state.first < 0 || state.end < state.first || state.steps < 0 || !(state.seconds >= 0)) std::abort();
}

void check_merged(const std::vector<hesper::PartFile>& parts, int64_t items) {
  refused_or_done([&] {
    const hesper::RunState whole = hesper::merge_parts(parts).state;
    if (whole.first != 0 || whole.end != items) std::abort();
    if (!whole.tensor("done", {items}).ge(static_cast<double>(whole.steps)).all().item<bool>()) std::abort();
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  refused_or_done([&] { check_state(hesper::parse_state(bytes, "file").state); });

  const std::string all(reinterpret_cast<const char*>(data), size);
  const std::string text = all.substr(0, all.find('\0'));
  const std::string rest = all.substr(std::min(text.size() + 1, size));
  const auto items = static_cast<int64_t>(rest.size() / sizeof(double));
  refused_or_done([&] {
    const at::Tensor done = at::empty({items}, at::kDouble);
    if (items > 0) std::memcpy(done.mutable_data_ptr(), rest.data(), done.nbytes());
    const hesper::SavedState saved = hesper::state_of(text, {{"done", done}, {"before/sum", at::ones({2})}}, "file");
    check_state(saved.state);
    check_merged({{"a", saved}}, items);
    hesper::SavedState other = saved;
    other.state.first = saved.state.end, other.state.end = items;
    other.state.tensors = {{"done", done.clone()}};
    check_merged({{"b", other}, {"a", saved}}, items);
  });
  return 0;
}
