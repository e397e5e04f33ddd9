#include "checkpoint/pickle_machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <stdexcept>
#include <utility>

#include "files/printable.h"

namespace hesper::pickle {
namespace {

// Far above what a state dict of 50,000 tensors needs, far below what would exhaust the memory of a small machine.
constexpr size_t max_objects = size_t{1} << 21;  // on the stack, in the memo, of containers
constexpr size_t max_tensors = size_t{1} << 18;
constexpr size_t max_dims = 16;

constexpr std::string_view rebuild_tensor_v2 = "torch._utils._rebuild_tensor_v2";
constexpr std::string_view rebuild_tensor_v1 = "torch._utils._rebuild_tensor";
constexpr std::string_view rebuild_parameter = "torch._utils._rebuild_parameter";
constexpr std::string_view ordered_dict = "collections.OrderedDict";

constexpr std::pair<std::string_view, c10::ScalarType> storage_types[] = {
    {"torch.DoubleStorage", c10::ScalarType::Double}, {"torch.FloatStorage", c10::ScalarType::Float},
    {"torch.HalfStorage", c10::ScalarType::Half},     {"torch.BFloat16Storage", c10::ScalarType::BFloat16},
    {"torch.LongStorage", c10::ScalarType::Long},     {"torch.IntStorage", c10::ScalarType::Int},
    {"torch.ShortStorage", c10::ScalarType::Short},   {"torch.CharStorage", c10::ScalarType::Char},
    {"torch.ByteStorage", c10::ScalarType::Byte},     {"torch.BoolStorage", c10::ScalarType::Bool},
};

std::optional<c10::ScalarType> storage_dtype(std::string_view global) {
  for (const auto& [name, dtype] : storage_types) {
    if (name == global) return dtype;
  }
  return std::nullopt;
}

// The list's own spelling of a global, which outlives every pickle.
std::optional<std::string_view> known_global(std::string_view global) {
  for (const std::string_view name : {rebuild_tensor_v2, rebuild_tensor_v1, rebuild_parameter, ordered_dict}) {
    if (name == global) return name;
  }
  for (const auto& [name, dtype] : storage_types) {
    if (name == global) return name;
  }
  return std::nullopt;
}

// numel <= storage_numel bounds the memory; the farthest element lies at offset + sum_i (size_i - 1) stride_i.
void check_bounds(const TensorRecord& record) {
  if (record.sizes.size() != record.strides.size()) {
    fail(fmt::format("{} sizes but {} strides", record.sizes.size(), record.strides.size()));
  }
  if (record.sizes.size() > max_dims) fail(fmt::format("{} dimensions, more than {}", record.sizes.size(), max_dims));
  if (record.offset < 0) fail(fmt::format("negative storage offset {}", record.offset));
  int64_t numel = 1;  // with empty dimensions counted as one, so that no other size is left unchecked
  int64_t farthest = record.offset;
  bool overflow = false, empty = false;
  for (size_t i = 0; i < record.sizes.size(); ++i) {
    const int64_t size = record.sizes[i], stride = record.strides[i];
    if (size < 0 || stride < 0) fail(fmt::format("negative size {} or stride {}", size, stride));
    int64_t step = 0;
    overflow |= __builtin_mul_overflow(numel, std::max<int64_t>(size, 1), &numel);
    overflow |= __builtin_mul_overflow(std::max<int64_t>(size, 1) - 1, stride, &step);
    overflow |= __builtin_add_overflow(farthest, step, &farthest);
    empty |= size == 0;
  }
  if (overflow) fail("sizes and strides overflow");
  if (empty) return;
  if (numel > record.storage_numel || farthest >= record.storage_numel) {
    fail(fmt::format("a tensor of {} elements reaching to element {} of a storage of {}", numel, farthest,
                     record.storage_numel));
  }
}

}  // namespace

void fail(const std::string& what) { throw std::runtime_error("pickle: " + what); }

std::string_view kind_of(const Value& value) {
  constexpr std::string_view names[] = {"a mark",         "None",      "true or false", "an integer", "a number",
                                        "a long integer", "a text",    "a global",      "a tuple",    "a list",
                                        "a dict",         "a storage", "a tensor"};
  static_assert(std::size(names) == std::variant_size_v<Value>);
  return names[value.index()];
}

std::string_view Machine::take(uint64_t size) {
  if (size > bytes_.size() - at_) fail(fmt::format("cut short at byte {} of {}", at_, bytes_.size()));
  at_ += size;
  return bytes_.substr(at_ - size, size);
}

uint64_t Machine::take_uint(int width) {
  uint64_t value = 0;
  const std::string_view data = take(static_cast<uint64_t>(width));
  for (int i = width - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(data[static_cast<size_t>(i)]);
  return value;
}

std::string_view Machine::take_line() {
  constexpr size_t longest = 4096;
  const size_t length = bytes_.substr(at_, longest).find('\n');
  if (length == std::string_view::npos) fail(fmt::format("cut short at byte {}", at_));
  const std::string_view line = take(length);
  ++at_;
  return line;
}

// LONG1: a signed little-endian integer of any length.
Value Machine::take_long() {
  const auto width = static_cast<int>(take_uint(1));
  if (width > 8) return LongInteger{take(static_cast<uint64_t>(width))};
  uint64_t value = take_uint(width);
  if (width > 0 && width < 8 && (value >> (8 * width - 1) & 1)) value |= ~uint64_t{0} << (8 * width);
  return static_cast<int64_t>(value);
}

void Machine::push(Value value) {
  if (stack_.size() >= max_objects) fail(fmt::format("more than {} values on the stack", max_objects));
  stack_.push_back(value);
}

Value Machine::pop() {
  const Value value = top();
  stack_.pop_back();
  return value;
}

const Value& Machine::top() const {
  if (stack_.empty()) fail("stack is empty");
  return stack_.back();
}

std::vector<Value> Machine::pop_to_mark() {
  const auto mark = std::find_if(stack_.rbegin(), stack_.rend(),
                                 [](const Value& value) { return std::holds_alternative<Mark>(value); });
  if (mark == stack_.rend()) fail("no mark on the stack");
  std::vector<Value> items(mark.base(), stack_.end());
  stack_.erase(mark.base() - 1, stack_.end());
  return items;
}

void Machine::put(uint64_t index) {
  if (memo_.size() >= max_objects) fail(fmt::format("more than {} values in the memo", max_objects));
  memo_.insert_or_assign(index, top());
}

void Machine::get(uint64_t index) {
  const auto found = memo_.find(index);
  if (found == memo_.end()) fail(fmt::format("memo {} is not set", index));
  push(found->second);
}

size_t Machine::new_container(std::vector<Value> items) {
  if (containers_.size() >= max_objects) fail(fmt::format("more than {} tuples, lists and dicts", max_objects));
  containers_.push_back(std::move(items));
  return containers_.size() - 1;
}

void Machine::push_tuple(size_t count) {
  if (count > stack_.size()) fail("stack is empty");
  const auto begin = stack_.end() - static_cast<std::ptrdiff_t>(count);
  std::vector<Value> items(begin, stack_.end());
  stack_.erase(begin, stack_.end());
  push(Tuple{new_container(std::move(items))});
}

void Machine::push_global(std::string_view module, std::string_view name) {
  const std::string global = fmt::format("{}.{}", module, name);
  const auto known = known_global(global);
  if (!known) fail(fmt::format("{} is not one of the globals that tensors need", printable(global)));
  push(Global{*known});
}

// ('storage', type, key, location, numel), in a legacy stream with one more: None, or what old views shared.
void Machine::push_storage() {
  const Value id = pop();
  const std::vector<Value>& fields = items(as<Tuple>(id, "storage"));
  const bool legacy = fields.size() == 6;
  if ((fields.size() != 5 && !legacy) || as<std::string_view>(fields[0], "storage tag") != "storage") {
    fail("unknown persistent id");
  }
  if (legacy && !std::holds_alternative<None>(fields[5])) fail("a storage that is a view of another is not supported");
  const std::string_view type = as<Global>(fields[1], "storage type").name;
  const auto dtype = storage_dtype(type);
  if (!dtype) fail(fmt::format("{} is no type of storage", type));
  const std::string_view key = as<std::string_view>(fields[2], "storage key");
  const StorageRecord record{*dtype, as<int64_t>(fields[4], "storage size")};
  if (record.numel < 0) fail(fmt::format("storage {} has the negative size {}", printable(key), record.numel));
  const auto [it, fresh] = storages_.emplace(key, record);
  if (it->second.dtype != record.dtype || it->second.numel != record.numel) {
    fail(fmt::format("storage {} is {} of {} and {} of {}", printable(key), it->second.numel,
                     c10::toString(it->second.dtype), record.numel, c10::toString(record.dtype)));
  }
  if (keys_.size() >= max_objects) fail(fmt::format("more than {} storages", max_objects));
  keys_.push_back(key);
  push(Storage{keys_.size() - 1});
}

void Machine::append(std::vector<Value> items) {
  std::vector<Value>& list = containers_[as<List>(top(), "a list to append to").number];
  list.insert(list.end(), items.begin(), items.end());
}

void Machine::set_items(const std::vector<Value>& items) {
  if (items.size() % 2 != 0) fail(fmt::format("{} keys and values, an odd number", items.size()));
  std::vector<Value>& dict = containers_[as<Dict>(top(), "a dict to set items of").number];
  dict.insert(dict.end(), items.begin(), items.end());
}

// The attributes of an OrderedDict (a state dict's _metadata) say nothing about tensors.
void Machine::build() {
  as<Dict>(pop(), "the attributes of an OrderedDict");
  as<Dict>(top(), "an OrderedDict with attributes");
}

std::vector<int64_t> Machine::dims(const Value& value, std::string_view what) const {
  const std::vector<Value>& list = items(as<Tuple>(value, what));
  if (list.size() > max_dims) fail(fmt::format("{} dimensions, more than {}", list.size(), max_dims));
  std::vector<int64_t> dims;
  dims.reserve(list.size());
  for (const Value& item : list) dims.push_back(as<int64_t>(item, what));
  return dims;
}

void Machine::reduce() {
  const Value tuple = pop();
  const Value function = pop();
  const std::vector<Value>& arguments = items(as<Tuple>(tuple, "arguments"));
  const std::string_view name = as<Global>(function, "function").name;
  const auto expect = [&](size_t count) {
    if (arguments.size() != count) fail(fmt::format("{} of {} fields, not {}", name, arguments.size(), count));
  };
  if (name == ordered_dict) {
    if (!arguments.empty()) fail("an OrderedDict that is made with items");
    return push(Dict{new_container({})});
  }
  if (name == rebuild_parameter) {  // (tensor, requires_grad, hooks)
    expect(3);
    return push(as<TensorNumber>(arguments[0], "tensor"));
  }
  if (name != rebuild_tensor_v1 && name != rebuild_tensor_v2) fail(fmt::format("'{}' is called", name));
  expect(name == rebuild_tensor_v1 ? 4 : 6);  // (storage, offset, sizes, strides[, requires_grad, hooks])
  const std::string_view key = keys_[as<Storage>(arguments[0], "storage").number];
  const StorageRecord& storage = storages_.find(key)->second;
  TensorRecord record{storage.dtype,
                      std::string(key),
                      storage.numel,
                      as<int64_t>(arguments[1], "offset"),
                      dims(arguments[2], "sizes"),
                      dims(arguments[3], "strides")};
  check_bounds(record);
  if (tensors_.size() >= max_tensors) fail(fmt::format("more than {} tensors", max_tensors));
  tensors_.push_back(std::move(record));
  push(TensorNumber{tensors_.size() - 1});
}

Value Machine::run() {
  stack_.clear();
  memo_.clear();
  while (step()) {
  }
  return pop();
}

// One opcode; false at STOP.
bool Machine::step() {
  const auto opcode = static_cast<unsigned char>(take_uint(1));
  switch (opcode) {
    case 0x80:  // PROTO
      if (const uint64_t protocol = take_uint(1); protocol < 2 || protocol > 5) {
        fail(fmt::format("protocol {}", protocol));
      }
      break;
    case 0x95:  // FRAME: a hint only
      take_uint(8);
      break;
    case 'c': {  // GLOBAL
      const std::string_view module = take_line();
      push_global(module, take_line());
      break;
    }
    case 0x93: {  // STACK_GLOBAL
      const Value name = pop();
      const Value module = pop();
      push_global(as<std::string_view>(module, "module"), as<std::string_view>(name, "name"));
      break;
    }
    case 'q':  // BINPUT
      put(take_uint(1));
      break;
    case 'r':  // LONG_BINPUT
      put(take_uint(4));
      break;
    case 0x94:  // MEMOIZE
      put(memo_.size());
      break;
    case 'h':  // BINGET
      get(take_uint(1));
      break;
    case 'j':  // LONG_BINGET
      get(take_uint(4));
      break;
    case '(':  // MARK
      push(Mark{});
      break;
    case 'N':  // NONE
      push(None{});
      break;
    case 0x88:  // NEWTRUE
      push(true);
      break;
    case 0x89:  // NEWFALSE
      push(false);
      break;
    case 'X':  // BINUNICODE
    case 'T':  // BINSTRING: a text of Python 2
      push(take(take_uint(4)));
      break;
    case 0x8c:  // SHORT_BINUNICODE
    case 'U':   // SHORT_BINSTRING
      push(take(take_uint(1)));
      break;
    case 'J':  // BININT
      push(int64_t{static_cast<int32_t>(take_uint(4))});
      break;
    case 'K':  // BININT1
      push(static_cast<int64_t>(take_uint(1)));
      break;
    case 'M':  // BININT2
      push(static_cast<int64_t>(take_uint(2)));
      break;
    case 0x8a:  // LONG1
      push(take_long());
      break;
    case 'G': {  // BINFLOAT: big-endian
      uint64_t bits = 0;
      for (const char byte : take(8)) bits = bits << 8 | static_cast<unsigned char>(byte);
      push(std::bit_cast<double>(bits));
      break;
    }
    case ')':  // EMPTY_TUPLE
      push_tuple(0);
      break;
    case 0x85:  // TUPLE1
    case 0x86:  // TUPLE2
    case 0x87:  // TUPLE3
      push_tuple(opcode - 0x84u);
      break;
    case 't': {  // TUPLE
      std::vector<Value> items = pop_to_mark();
      push(Tuple{new_container(std::move(items))});
      break;
    }
    case ']':  // EMPTY_LIST
      push(List{new_container({})});
      break;
    case 'a':  // APPEND
      append({pop()});
      break;
    case 'e':  // APPENDS
      append(pop_to_mark());
      break;
    case '}':  // EMPTY_DICT
      push(Dict{new_container({})});
      break;
    case 's': {  // SETITEM
      const Value value = pop();
      const Value key = pop();
      set_items({key, value});
      break;
    }
    case 'u':  // SETITEMS
      set_items(pop_to_mark());
      break;
    case 'b':  // BUILD
      build();
      break;
    case 'Q':  // BINPERSID
      push_storage();
      break;
    case 'R':  // REDUCE
      reduce();
      break;
    case '.':  // STOP
      return false;
    default:
      fail(fmt::format("opcode 0x{:02x} at byte {} is not one that tensors need", opcode, at_ - 1));
  }
  return true;
}

}  // namespace hesper::pickle
