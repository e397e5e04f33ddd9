#include "text/ids_cache.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <span>
#include <stdexcept>

#include "files/digest.h"
#include "files/read_file.h"
#include "text/npy.h"

namespace hesper {
namespace {

namespace fs = std::filesystem;

/// Hex; "" where `model` holds no tokenizer's files. Every build of the program encodes for itself: a tokenizer that
/// was mended must not be asked for ids from before.
std::string identity(const fs::path& model) {
  Sha256 digest;
  bool any = false;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "tokenizer.model",
                           "special_tokens_map.json", "added_tokens.json"}) {
    if (!fs::is_regular_file(model / name)) continue;
    any = true;
    const std::string bytes = read_file(model / name), head = fmt::format("{} {}\n", name, bytes.size());
    digest.update(std::as_bytes(std::span(head)));
    digest.update(std::as_bytes(std::span(bytes)));
  }
  std::error_code unknown;
  const auto age = fs::last_write_time("/proc/self/exe", unknown);
  if (!any || unknown) return "";
  const std::string program = fmt::format("{} {}", HESPER_VERSION, age.time_since_epoch().count());
  digest.update(std::as_bytes(std::span(program)));
  return digest.hex();
}

}  // namespace

std::vector<int32_t> encode_cached(const Tokenizer& tokenizer, const fs::path& model, std::string_view text,
                                   const fs::path& folder) {
  const std::string own = text.size() < least_cached_bytes ? "" : identity(model);
  if (own.empty()) return tokenizer.encode(text);
  const fs::path file = folder / fmt::format("{}-{}.npy", own, sha256_hex(std::as_bytes(std::span(text))));
  if (fs::is_regular_file(file)) {
    try {
      const at::Tensor ids = read_npy(file).contiguous();
      if (ids.dim() == 1 && ids.scalar_type() == at::kInt) {
        return {ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + ids.numel()};
      }
    } catch (const std::exception&) {  // damaged: made anew
    }
  }
  std::vector<int32_t> ids = tokenizer.encode(text);
  try {
    write_npy(file, at::tensor(ids, at::kInt));
  } catch (const std::runtime_error&) {  // a cache that cannot be written is none
  }
  return ids;
}

}  // namespace hesper
