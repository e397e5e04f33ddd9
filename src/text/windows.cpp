#include "text/windows.h"

#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <limits>
#include <numeric>
#include <set>
#include <stdexcept>

#include "files/digest.h"
#include "text/npy.h"

namespace hesper {
namespace {

constexpr int64_t kDefaultSeqlen = 2048, kDefaultWindows = 30, kIgnore = -100;

template <typename... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw std::invalid_argument(fmt::format(format, std::forward<Args>(args)...));
}

// Weyl sequence with a finaliser (splitmix64); bounded draws by rejection.
class Generator {
 public:
  explicit Generator(uint64_t seed) : state_(seed) {}
  uint64_t below(uint64_t bound) {
    const uint64_t limit = std::numeric_limits<uint64_t>::max() - std::numeric_limits<uint64_t>::max() % bound;
    for (;;) {
      const uint64_t draw = next();
      if (draw < limit) return draw % bound;
    }
  }

 private:
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

struct Range {
  int64_t begin, end;
};

Range parse_range(const std::string& text) {
  const auto number = [&](std::string_view part) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || value < 0) {
      refuse("--windows {}: first, random or A:B expected", text);
    }
    return value;
  };
  const size_t colon = text.find(':');
  if (colon == std::string::npos) refuse("--windows {}: first, random or A:B expected", text);
  return {number(std::string_view(text).substr(0, colon)), number(std::string_view(text).substr(colon + 1))};
}

std::vector<int64_t> consecutive(int64_t begin, int64_t count) {
  std::vector<int64_t> index(static_cast<size_t>(count));
  std::iota(index.begin(), index.end(), begin);
  return index;
}

std::vector<int64_t> choose(int64_t available, const WindowOptions& options, std::vector<std::string>& notes) {
  if (options.b && *options.b < 1) refuse("--b {}: at least 1 window is needed", *options.b);
  if (options.windows != "first" && options.windows != "random") {
    const auto [begin, end] = parse_range(options.windows);
    if (end <= begin) refuse("--windows {}: the range is empty", options.windows);
    if (end > available) refuse("--windows {}: only {} windows are there", options.windows, available);
    if (options.b && *options.b != end - begin) {
      refuse("--b {} beside --windows {}, which are {} windows", *options.b, options.windows, end - begin);
    }
    return consecutive(begin, end - begin);
  }
  int64_t b = options.b.value_or(kDefaultWindows);
  if (b > available) {
    if (options.b) refuse("--b {}: only {} windows are there", b, available);
    notes.push_back(fmt::format("b lowered from {} to the {} windows that are there", b, available));
    b = available;
  }
  return options.windows == "first" ? consecutive(0, b) : random_subset(available, b, options.seed);
}

// Labels that default to the ids: position 0 and those before loss_from carry no loss.
void mask_labels(at::Tensor& labels, int64_t loss_from) {
  const int64_t seqlen = labels.size(1);
  if (loss_from < 0) refuse("--loss-from {}: a position from 0 on expected", loss_from);
  const int64_t masked = std::max<int64_t>(loss_from, 1);
  if (masked >= seqlen) refuse("--loss-from {}: a window has only {} positions", loss_from, seqlen);
  labels.narrow(1, 0, masked).fill_(kIgnore);
}

void check_seqlen(int64_t seqlen, const WindowOptions& options) {
  if (seqlen < 2) refuse("seqlen {}: a window needs at least 2 tokens", seqlen);
  if (options.max_seqlen && seqlen > *options.max_seqlen) {
    refuse("seqlen {}: the model has only {} positions", seqlen, *options.max_seqlen);
  }
}

// T of a stream with `total` ids, `lead` ids of each window not from the stream.
int64_t choose_seqlen(int64_t total, int64_t lead, const WindowOptions& options, std::vector<std::string>& notes) {
  if (total < 1) refuse("the text has no tokens");
  int64_t seqlen = options.seqlen.value_or(kDefaultSeqlen);
  const auto lower = [&](int64_t limit, const char* what) {
    if (options.seqlen || seqlen <= limit) return;
    notes.push_back(fmt::format("seqlen lowered from {} to {}, {}", seqlen, limit, what));
    seqlen = limit;
  };
  if (options.max_seqlen) lower(*options.max_seqlen, "the model's positions");
  lower(total + lead, "all that the text has");
  check_seqlen(seqlen, options);
  if (seqlen - lead > total) refuse("seqlen {}: the text has only {} tokens", seqlen, total + lead);
  return seqlen;
}

Windows cut_stream(const at::Tensor& stream, std::optional<int32_t> bos, BosPlacement placement,
                   const WindowOptions& options, std::vector<std::string>& notes) {
  at::Tensor ids = stream;  // (N) int64
  if (placement == BosPlacement::window && !bos) refuse("--bos window: the tokenizer has no BOS");
  if (placement == BosPlacement::document && bos) ids = at::cat({at::full({1}, *bos, ids.options()), ids});
  const int64_t lead = placement == BosPlacement::window ? 1 : 0;
  const int64_t seqlen = choose_seqlen(ids.numel(), lead, options, notes);
  const int64_t step = seqlen - lead;

  Windows windows;
  windows.available = ids.numel() / step;
  windows.index = choose(windows.available, options, notes);
  const at::Tensor all = ids.narrow(0, 0, windows.available * step).view({windows.available, step});
  windows.ids = all.index_select(0, at::tensor(windows.index, at::kLong));
  if (lead == 1) {
    windows.ids = at::cat({at::full({windows.ids.size(0), 1}, *bos, windows.ids.options()), windows.ids}, 1);
  }
  windows.labels = windows.ids.clone();
  mask_labels(windows.labels, options.loss_from);
  return windows;
}

at::Tensor read_ids(const std::filesystem::path& path) {
  const at::Tensor ids = read_npy(path);
  if (ids.scalar_type() != at::kInt && ids.scalar_type() != at::kLong) {
    refuse("{}: ids are int32 or int64, but this is {}", path.string(), c10::toString(ids.scalar_type()));
  }
  return ids.to(at::kLong);
}

std::string shape_of(const at::Tensor& tensor) {
  std::string text;
  for (const int64_t size : tensor.sizes()) text += fmt::format("{}{}", text.empty() ? "" : " x ", size);
  return text.empty() ? "a scalar" : text;
}

}  // namespace

std::vector<int64_t> random_subset(int64_t n, int64_t b, uint64_t seed) {
  // Floyd: for j = n-b..n-1 take a draw of 0..j, or j itself if that is taken already.
  Generator generator(seed);
  std::set<int64_t> chosen;
  for (int64_t j = n - b; j < n; ++j) {
    const auto draw = static_cast<int64_t>(generator.below(static_cast<uint64_t>(j) + 1));
    if (!chosen.insert(draw).second) chosen.insert(j);
  }
  return {chosen.begin(), chosen.end()};
}

BosPlacement parse_bos_placement(const std::string& text) {
  if (text == "document") return BosPlacement::document;
  if (text == "window") return BosPlacement::window;
  if (text == "none") return BosPlacement::none;
  refuse("--bos {}: document, window or none expected", text);
}

Windows cut_windows(std::span<const int32_t> text_ids, std::optional<int32_t> bos, const WindowOptions& options,
                    std::vector<std::string>& notes) {
  const std::vector<int64_t> wide(text_ids.begin(), text_ids.end());
  const at::Tensor stream = at::tensor(wide, at::kLong);
  return cut_stream(stream, bos, options.bos.value_or(BosPlacement::document), options, notes);
}

Windows windows_from_files(const std::filesystem::path& ids_path, const std::optional<std::filesystem::path>& labels,
                           std::optional<int32_t> bos, const WindowOptions& options, std::vector<std::string>& notes) {
  const at::Tensor ids = read_ids(ids_path);
  const std::string name = ids_path.string();
  const BosPlacement placement = options.bos.value_or(BosPlacement::none);
  if (ids.dim() == 1) {
    if (labels) refuse("{}: labels need 2-D windows, but the ids are one stream", labels->string());
    return cut_stream(ids, bos, placement, options, notes);
  }
  if (ids.dim() != 2) refuse("{}: a 1-D stream or 2-D windows expected, but this is {}", name, shape_of(ids));
  if (placement != BosPlacement::none) refuse("{}: windows made elsewhere are taken as they are: --bos none", name);
  const int64_t seqlen = ids.size(1);
  if (ids.size(0) < 1) refuse("{}: no windows", name);
  if (options.seqlen && *options.seqlen != seqlen) {
    refuse("--seqlen {}: the windows of {} have {} tokens", *options.seqlen, name, seqlen);
  }
  check_seqlen(seqlen, options);
  at::Tensor all_labels = ids;
  if (labels) {
    all_labels = read_ids(*labels);
    if (all_labels.sizes() != ids.sizes()) {
      refuse("{}: labels are {}, but the ids are {}", labels->string(), shape_of(all_labels), shape_of(ids));
    }
  }
  Windows windows;
  windows.available = ids.size(0);
  windows.index = choose(windows.available, options, notes);
  const at::Tensor rows = at::tensor(windows.index, at::kLong);
  windows.ids = ids.index_select(0, rows);
  windows.labels = all_labels.index_select(0, rows);
  mask_labels(windows.labels, options.loss_from);
  const at::Tensor counted = windows.labels.ne(kIgnore).sum(1);  // (b)
  for (int64_t row = 0; row < counted.size(0); ++row) {
    if (counted[row].item<int64_t>() == 0) {
      refuse("{}: window {} has no position that counts", name, windows.index[static_cast<size_t>(row)]);
    }
  }
  return windows;
}

void check_vocabulary(const Windows& windows, int64_t vocab_size) {
  const auto check = [&](const at::Tensor& tensor, const char* what, bool may_ignore) {
    at::Tensor bad = tensor.lt(0).logical_or(tensor.ge(vocab_size));
    if (may_ignore) bad = bad.logical_and(tensor.ne(kIgnore));
    if (!bad.any().item<bool>()) return;
    const at::Tensor place = bad.nonzero()[0];  // (2)
    const auto row = place[0].item<int64_t>(), column = place[1].item<int64_t>();
    refuse("{} {} at position {} of window {} is outside the model's vocabulary of {}", what,
           tensor[row][column].item<int64_t>(), column, windows.index[static_cast<size_t>(row)], vocab_size);
  };
  check(windows.ids, "token id", false);
  check(windows.labels, "label", true);
}

std::string ids_sha256(std::span<const int32_t> ids) {
  static_assert(std::endian::native == std::endian::little);
  return sha256_hex(std::as_bytes(ids));
}

std::string ids_sha256(const at::Tensor& ids) {
  const at::Tensor narrow = ids.to(at::kCPU, at::kInt).contiguous();
  return ids_sha256(std::span(narrow.const_data_ptr<int32_t>(), static_cast<size_t>(narrow.numel())));
}

}  // namespace hesper
