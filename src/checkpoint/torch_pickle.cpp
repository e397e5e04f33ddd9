#include "checkpoint/torch_pickle.h"

#include <fmt/format.h>

#include <set>
#include <utility>

#include "checkpoint/pickle_machine.h"
#include "files/printable.h"

namespace hesper {
namespace {

using namespace pickle;

// 0x1950a86a20f9469cfc6c, the first object of a legacy stream, as LONG1 holds it.
constexpr std::string_view magic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
constexpr int64_t legacy_version = 1001;

StateDict state_dict_of(const Machine& machine, const Value& value) {
  if (!std::holds_alternative<Dict>(value)) fail(fmt::format("the file holds {}, not a state dict", kind_of(value)));
  const std::vector<Value>& items = machine.items(std::get<Dict>(value));
  StateDict tensors;
  std::set<std::string_view> names;
  for (size_t i = 0; i < items.size(); i += 2) {
    const auto* name = std::get_if<std::string_view>(&items[i]);
    if (name == nullptr) fail(fmt::format("a key of the state dict is {}, not a text", kind_of(items[i])));
    const auto* tensor = std::get_if<TensorNumber>(&items[i + 1]);
    if (tensor == nullptr) fail(fmt::format("entry {} is {}, not a tensor", printable(*name), kind_of(items[i + 1])));
    if (!names.insert(*name).second) fail(fmt::format("entry {} is there twice", printable(*name)));
    tensors.emplace_back(*name, machine.tensor(*tensor));
  }
  return tensors;
}

// The machine that wrote the stream: {"protocol_version": 1001, "little_endian": True, "type_sizes": {...}}.
void check_byte_order(const Machine& machine, const Value& value) {
  const std::vector<Value>& items = machine.items(as<Dict>(value, "what the stream says of its machine"));
  for (size_t i = 0; i < items.size(); i += 2) {
    const auto* name = std::get_if<std::string_view>(&items[i]);
    if (name == nullptr || *name != "little_endian") continue;
    if (!as<bool>(items[i + 1], "little_endian")) fail("big-endian byte order, only little-endian is read");
    return;
  }
  fail("the stream does not say its byte order");
}

}  // namespace

TensorRecord read_tensor_pickle(std::string_view bytes) {
  Machine machine(bytes);
  const Value result = machine.run();
  if (const auto* tensor = std::get_if<TensorNumber>(&result)) return machine.tensor(*tensor);
  fail(fmt::format("the file holds {}, not one plain tensor", kind_of(result)));
}

StateDict read_state_dict_pickle(std::string_view bytes) {
  Machine machine(bytes);
  const Value result = machine.run();
  return state_dict_of(machine, result);
}

bool is_legacy_stream(std::string_view file) {
  if (!file.starts_with('\x80')) return false;
  const size_t found = file.substr(0, 32).find(magic);  // behind PROTO, perhaps FRAME, LONG1 and the length
  return found != std::string_view::npos;
}

LegacyStream read_legacy_stream(std::string_view file) {
  Machine machine(file.substr(0, max_pickle_bytes));
  if (const Value first = machine.run(); as<LongInteger>(first, "the magic number").bytes != magic) {
    fail("the magic number is another than torch.save's");
  }
  if (const Value version = machine.run(); as<int64_t>(version, "the version") != legacy_version) {
    fail(fmt::format("version {} of the stream, {} is read", std::get<int64_t>(version), legacy_version));
  }
  check_byte_order(machine, machine.run());

  LegacyStream stream;
  const Value state_dict = machine.run();
  stream.tensors = state_dict_of(machine, state_dict);
  const Value keys = machine.run();
  uint64_t at = machine.position();
  for (const Value& item : machine.items(as<List>(keys, "the list of storages"))) {
    const std::string_view key = as<std::string_view>(item, "a storage key");
    const auto storage = machine.storages().find(key);
    if (storage == machine.storages().end()) fail(fmt::format("no tensor says what storage {} is", printable(key)));
    const auto& [dtype, numel] = storage->second;
    if (file.size() - at < 8) fail(fmt::format("storage {}: cut short at byte {}", printable(key), at));
    uint64_t stored = 0;
    for (size_t i = 8; i-- > 0;) stored = stored << 8 | static_cast<unsigned char>(file[at + i]);
    at += 8;
    if (stored != static_cast<uint64_t>(numel)) {
      fail(fmt::format("storage {} has {} elements, its tensors say {}", printable(key), stored, numel));
    }
    if (stored > (file.size() - at) / c10::elementSize(dtype)) {
      fail(fmt::format("storage {}: {} elements of {} bytes, but {} bytes are left", printable(key), stored,
                       c10::elementSize(dtype), file.size() - at));
    }
    if (!stream.storages.emplace(key, at).second) fail(fmt::format("storage {} is listed twice", printable(key)));
    at += stored * c10::elementSize(dtype);
  }
  for (const auto& [name, tensor] : stream.tensors) {
    if (!stream.storages.contains(tensor.storage_key)) {
      fail(fmt::format("entry {}: its storage {} is not in the file", printable(name), printable(tensor.storage_key)));
    }
  }
  return stream;
}

}  // namespace hesper
