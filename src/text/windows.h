#pragma once
// A stream of ids -> the windows that a Hessian is taken over.
#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace hesper {

struct Windows {
  at::Tensor ids;              // (b, T) int64
  at::Tensor labels;           // (b, T) int64; entry j is the id predicted for position j from those before, -100: none
  std::vector<int64_t> index;  // (b) which window of all available each row is
  int64_t available = 0;       // windows that the stream or file holds
};

enum class BosPlacement {
  document,  // once before the text
  window,    // before every window, which then holds T - 1 ids of the text
  none,
};

struct WindowOptions {
  std::optional<int64_t> seqlen = {};      // T; default 2048, lowered with a note where less is there
  std::optional<int64_t> b = {};           // windows used; default 30, lowered with a note where fewer are there
  std::optional<int64_t> max_seqlen = {};  // positions of the model, when it has a limit
  std::string windows = "first";           // "first", "random" or "A:B" (A included, B not)
  // Default: document for a text; none for ids made elsewhere, which are taken as they are.
  std::optional<BosPlacement> bos = {};
  int64_t loss_from = 1;  // first position whose prediction counts; position 0 never does
  uint64_t seed = 0;      // of "random": b distinct windows, sorted, the same on every platform
};

// All of these throw std::invalid_argument, with both numbers, where an option asks for more than is there.

// Consecutive windows of a text's ids (without BOS); the remainder is dropped. `bos` is the tokenizer's, if it has one:
// document without one adds nothing, window without one is an error. Notes about lowered defaults are appended.
Windows cut_windows(std::span<const int32_t> text_ids, std::optional<int32_t> bos, const WindowOptions& options,
                    std::vector<std::string>& notes);

// Ids made elsewhere, .npy of int32 or int64: a 1-D stream is cut as above; of 2-D windows (n, T) rows are chosen and
// bos may only be none. `labels` (2-D windows only, same shape, -100: no loss) default to the ids themselves.
// std::runtime_error when a file cannot be read.
Windows windows_from_files(const std::filesystem::path& ids, const std::optional<std::filesystem::path>& labels,
                           std::optional<int32_t> bos, const WindowOptions& options, std::vector<std::string>& notes);

// Ids and labels (but -100) must lie in 0..vocab_size-1.
void check_vocabulary(const Windows& windows, int64_t vocab_size);

// SHA-256 of the ids as int32, little-endian, row after row.
std::string ids_sha256(const at::Tensor& ids);
std::string ids_sha256(std::span<const int32_t> ids);

// b distinct numbers of 0..n-1, ascending; the same on every platform. Needs 0 <= b <= n.
std::vector<int64_t> random_subset(int64_t n, int64_t b, uint64_t seed);

// "document", "window", "none". std::invalid_argument otherwise.
BosPlacement parse_bos_placement(const std::string& text);

}  // namespace hesper
