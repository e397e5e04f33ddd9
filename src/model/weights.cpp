#include "model/weights.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <set>
#include <stdexcept>
#include <string>

namespace hesper {
namespace {

constexpr const char* head_name = "lm_head.weight";

bool is_floating(at::ScalarType dtype) {
  return dtype == at::kDouble || dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16;
}

// Buffers that old checkpoints carry and no model reads (rotary tables, causal masks), and what is beside the language
// part of a multimodal checkpoint.
bool is_harmless(const std::string& name, const ModelConfig& config) {
  for (const char* buffer : {"rotary_emb.inv_freq", "decoder.version"}) {
    if (name.ends_with(buffer)) return true;
  }
  if (config.family == Family::gpt2 && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")))
    return true;
  if (config.family == Family::gpt_neox &&
      (name.ends_with(".attention.bias") || name.ends_with(".attention.masked_bias")))
    return true;
  constexpr std::string_view others[] = {"vision_model.", "vision_tower.", "multi_modal_projector."};
  std::string_view rest = name;
  if (rest.starts_with("model.")) rest.remove_prefix(6);
  return config.language_part && std::any_of(std::begin(others), std::end(others),
                                             [&](std::string_view part) { return rest.starts_with(part); });
}

// Flat place of the first NaN or infinity, -1 when there is none: an exponent of all ones, tested on the bits in runs
// that the compiler vectorises, so that no copy of the tensor is made.
template <class Bits>
int64_t first_not_finite(const at::Tensor& tensor, Bits exponent) {
  constexpr int64_t run = 4096;
  const auto* bits = static_cast<const Bits*>(tensor.const_data_ptr());
  const auto bad = [exponent](Bits x) { return (x & exponent) == exponent; };
  for (int64_t begin = 0; begin < tensor.numel(); begin += run) {
    const int64_t end = std::min(begin + run, tensor.numel());
    Bits any = 0;
    for (int64_t i = begin; i < end; ++i) any = static_cast<Bits>(any | static_cast<Bits>(bad(bits[i])));
    if (any != 0) return std::find_if(bits + begin, bits + end, bad) - bits;
  }
  return -1;
}

int64_t first_not_finite(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return first_not_finite<uint64_t>(tensor, 0x7ff0000000000000);
    case at::kFloat:
      return first_not_finite<uint32_t>(tensor, 0x7f800000);
    case at::kHalf:
      return first_not_finite<uint16_t>(tensor, 0x7c00);
    default:
      return first_not_finite<uint16_t>(tensor, 0x7f80);  // bfloat16
  }
}

// A tensor of the checkpoint: a parameter, or a stack of them.
struct Stored {
  std::string name;
  std::vector<int64_t> shape;
};
Stored stored_of(const ParameterSpec& spec) {
  return spec.piece ? Stored{spec.piece->tensor, spec.piece->shape} : Stored{spec.name, spec.shape};
}

// The parameter's place in its stored tensor; a view.
at::Tensor piece_of(const ParameterSpec& spec, const at::Tensor& stored) {
  if (!spec.piece) return stored;
  return stored[spec.piece->expert].narrow(1, spec.piece->begin, spec.piece->end - spec.piece->begin).t();
}

// What is wrong with a stored tensor before its values are read; "" when nothing is.
std::string header_fault(const Checkpoint& checkpoint, const Stored& spec) {
  if (!checkpoint.has(spec.name)) {
    return fmt::format("{}: tensor {} is missing, expected shape {}", checkpoint.folder(), spec.name,
                       format_shape(spec.shape));
  }
  const TensorInfo& info = checkpoint.info(spec.name);
  if (info.shape != spec.shape) {
    return fmt::format("{}: tensor {} has shape {}, expected {}", checkpoint.file(spec.name), spec.name,
                       format_shape(info.shape), format_shape(spec.shape));
  }
  if (!is_floating(info.dtype)) {
    return fmt::format("{}: tensor {} is stored as {}, expected a floating type (shape {})", checkpoint.file(spec.name),
                       spec.name, c10::toString(info.dtype), format_shape(info.shape));
  }
  return "";
}

bool same_values(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() == b.scalar_type()) return std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
  return is_floating(a.scalar_type()) && is_floating(b.scalar_type()) && a.to(at::kDouble).equal(b.to(at::kDouble));
}

// A head stored beside the embedding it is tied to must be that embedding: transformers unties a different one.
std::string tied_head_fault(const Checkpoint& checkpoint, const ParameterSpec& embedding) {
  const TensorInfo& head = checkpoint.info(head_name);
  if (head.shape != embedding.shape) {
    return fmt::format("{}: tensor {} has shape {}, the embedding it is tied to {}", checkpoint.file(head_name),
                       head_name, format_shape(head.shape), format_shape(embedding.shape));
  }
  if (!same_values(checkpoint.tensor(head_name), checkpoint.tensor(embedding.name))) {
    return fmt::format("{}: tensor {} differs from {}, but tie_word_embeddings is true (both {})",
                       checkpoint.file(head_name), head_name, embedding.name, format_shape(head.shape));
  }
  return "";
}

std::string value_fault(const Checkpoint& checkpoint, const Stored& spec, const at::Tensor& value) {
  const int64_t place = first_not_finite(value);
  if (place < 0) return "";
  return fmt::format("{}: tensor {} of shape {} is not finite in {}: {} at flat index {}", checkpoint.file(spec.name),
                     spec.name, format_shape(spec.shape), c10::toString(value.scalar_type()),
                     value.view(-1)[place].item<double>(), place);
}

class Faults {
 public:
  void add(std::string fault) {
    if (fault.empty()) return;
    if (first_.empty()) first_ = std::move(fault);
    ++count_;
  }
  void raise() const {
    if (count_ == 0) return;
    throw std::runtime_error(count_ == 1 ? first_ : fmt::format("{} (and {} more tensors)", first_, count_ - 1));
  }

 private:
  std::string first_;
  int64_t count_ = 0;
};

}  // namespace

int Weights::index(std::string_view name) const {
  const auto it =
      std::find_if(specs.begin(), specs.end(), [&](const ParameterSpec& spec) { return spec.name == name; });
  return it == specs.end() ? -1 : static_cast<int>(it - specs.begin());
}

Weights load_weights(const Checkpoint& checkpoint, const ModelConfig& config, std::optional<at::ScalarType> dtype) {
  if (dtype && !is_floating(*dtype)) {
    throw std::invalid_argument(fmt::format("weights cannot be loaded as {}", c10::toString(*dtype)));
  }
  Weights weights{config, parameter_table(config), {}};

  Faults faults;
  std::set<std::string> known;
  for (const ParameterSpec& spec : weights.specs) {
    const Stored stored = stored_of(spec);
    if (known.insert(stored.name).second) faults.add(header_fault(checkpoint, stored));
  }
  for (const std::string& name : checkpoint.names()) {
    if (known.contains(name) || is_harmless(name, config) || (config.tied_head && name == head_name)) continue;
    faults.add(fmt::format("{}: tensor {} of shape {} is no part of this model", checkpoint.file(name), printable(name),
                           format_shape(checkpoint.info(name).shape)));
  }
  faults.raise();
  if (config.tied_head && checkpoint.has(head_name)) faults.add(tied_head_fault(checkpoint, weights.specs[0]));

  std::map<std::string, at::Tensor> stacks;  // each read and looked over once for all of its experts
  for (const ParameterSpec& spec : weights.specs) {
    const Stored stored = stored_of(spec);
    at::Tensor value = spec.piece ? stacks[stored.name] : at::Tensor();
    if (!value.defined()) {
      value = checkpoint.tensor(stored.name);
      if (dtype) value = value.to(*dtype);
      faults.add(value_fault(checkpoint, stored, value));
    }
    if (spec.piece) stacks[stored.name] = value;
    weights.values.push_back(piece_of(spec, value));
  }
  faults.raise();
  return weights;
}

}  // namespace hesper
