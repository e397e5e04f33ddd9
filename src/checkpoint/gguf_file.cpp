#include "checkpoint/gguf_file.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <stdexcept>

#include "checkpoint/ggml_blocks.h"

namespace hesper {
namespace {

constexpr uint64_t max_heads = 1 << 16;

// The type that a tensor comes back in.
c10::ScalarType dtype_of(const GgmlType& type) {
  if (type.name == "F16") return at::kHalf;
  if (type.name == "BF16") return at::kBFloat16;
  return at::kFloat;
}

// llama.cpp's rotary embedding turns neighbouring pairs of a head's rows, Hugging Face's rows D/2 apart:
// row (h, i, half) of the file is row (h, half, i), for D/2 pairs i of each of the heads h.
at::Tensor in_order(const at::Tensor& stored, int64_t heads) {
  const int64_t half = stored.size(0) / heads / 2;
  return stored.reshape({heads, half, 2, -1}).transpose(1, 2).reshape(stored.sizes());
}

}  // namespace

GgufFile::GgufFile(const std::string& path) : WeightFile(path), gguf_(parse_gguf(bytes(), path)) {
  std::vector<TensorInfo> infos;
  for (const GgufTensor& tensor : gguf_.tensors) {
    const bool blocks = tensor.type->elements > 1;
    infos.push_back({tensor.name, dtype_of(*tensor.type), tensor.shape, tensor.begin, tensor.end,
                     blocks ? tensor.type->name : std::string_view()});
  }
  set_tensors(std::move(infos));
}

nlohmann::json GgufFile::config() const {
  std::vector<float> rope_freqs;
  if (has("rope_freqs.weight")) {
    const at::Tensor values = view("rope_freqs.weight").to(at::kFloat).flatten();
    rope_freqs.assign(values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel());
  }
  return gguf_config(gguf_, rope_freqs, path());
}

int64_t GgufFile::permuted_heads(const TensorInfo& info) const {
  const GgufFields fields(gguf_, path());
  const bool q = info.name.find(".attn_q.") != std::string::npos;
  if (!q && info.name.find(".attn_k.") == std::string::npos) return 0;
  const uint64_t heads = fields.integer("llama.attention.head_count", max_heads);
  const auto permuted =
      static_cast<int64_t>(q ? heads : fields.integer_or("llama.attention.head_count_kv", max_heads, heads));
  if (permuted < 1 || info.shape[0] % (2 * permuted) != 0) {
    throw std::runtime_error(fmt::format("{}: tensor {}: {} rows are no whole number of pairs in each of {} heads",
                                         path(), printable(info.name), info.shape[0], permuted));
  }
  return permuted;
}

at::Tensor GgufFile::value(size_t place) const {
  const TensorInfo& info = tensors()[place];
  at::Tensor stored;
  if (info.block_type.empty()) {
    stored = mapped(info);
  } else {
    stored = at::empty(info.shape, at::kFloat);
    const GgmlType& type = *gguf_.tensors[place].type;
    const auto blocks = bytes().subspan(info.begin, info.end - info.begin);
    const std::span values(stored.data_ptr<float>(), static_cast<size_t>(stored.numel()));
    constexpr int64_t grain = 4096;
    at::parallel_for(0, static_cast<int64_t>(values.size() / type.elements), grain, [&](int64_t begin, int64_t end) {
      const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
      dequantise(type, blocks.subspan(first * type.bytes, count * type.bytes),
                 values.subspan(first * type.elements, count * type.elements));
    });
  }
  const int64_t heads = permuted_heads(info);
  return heads == 0 ? stored : in_order(stored, heads);
}

}  // namespace hesper
