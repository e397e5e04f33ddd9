#include "report/tensor_pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <variant>

namespace hesper {
namespace {

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error("pickle: " + what); }

struct Mark {};
struct None {};
struct OrderedDict {};  // always empty
struct Global {
  std::string name;  // module.name, on the list below
};
struct Storage {
  c10::ScalarType dtype;
  std::string key;
  int64_t numel;
};
struct Value;
struct Tuple {
  std::shared_ptr<const std::vector<Value>> items;
  int depth;  // of nested tuples
};
struct Value {
  std::variant<Mark, None, bool, int64_t, std::string, Global, Storage, OrderedDict, Tuple, TensorRecord> is;
};

constexpr int max_depth = 8;  // a plain tensor needs 2
constexpr size_t max_dims = 64;

const std::map<std::string, c10::ScalarType, std::less<>> storage_types = {
    {"torch.FloatStorage", c10::ScalarType::Float}, {"torch.DoubleStorage", c10::ScalarType::Double},
    {"torch.HalfStorage", c10::ScalarType::Half},   {"torch.BFloat16Storage", c10::ScalarType::BFloat16},
    {"torch.LongStorage", c10::ScalarType::Long},   {"torch.IntStorage", c10::ScalarType::Int},
};
constexpr std::string_view rebuild_tensor = "torch._utils._rebuild_tensor_v2";
constexpr std::string_view rebuild_parameter = "torch._utils._rebuild_parameter";
constexpr std::string_view ordered_dict = "collections.OrderedDict";

// For messages: hostile names shortened and cleaned of control bytes.
std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 80)) out += c >= ' ' && c <= '~' ? c : '?';
  return out;
}

template <typename T>
const T& as(const Value& value, std::string_view what) {
  if (const T* typed = std::get_if<T>(&value.is)) return *typed;
  fail(fmt::format("{} is missing or of the wrong kind", what));
}

std::vector<int64_t> as_dims(const Value& value, std::string_view what) {
  std::vector<int64_t> dims;
  for (const Value& item : *as<Tuple>(value, what).items) dims.push_back(as<int64_t>(item, what));
  return dims;
}

// numel <= storage_numel bounds the memory; the farthest element lies at offset + sum_i (size_i - 1) stride_i.
void check_bounds(const TensorRecord& record) {
  if (record.sizes.size() != record.strides.size()) {
    fail(fmt::format("{} sizes but {} strides", record.sizes.size(), record.strides.size()));
  }
  if (record.sizes.size() > max_dims) fail(fmt::format("{} dimensions, more than {}", record.sizes.size(), max_dims));
  if (record.storage_numel < 0 || record.offset < 0) fail("negative storage size or offset");
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

class Machine {
 public:
  explicit Machine(std::string_view bytes) : bytes_(bytes) {}

  TensorRecord run() {
    std::optional<Value> result;
    while (!result) result = step();
    if (auto* record = std::get_if<TensorRecord>(&result->is)) return std::move(*record);
    fail("the file does not hold one plain tensor");
  }

 private:
  std::string_view take(uint64_t size) {
    if (size > bytes_.size() - at_) fail(fmt::format("cut short at byte {} of {}", at_, bytes_.size()));
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  uint64_t take_uint(int width) {
    uint64_t value = 0;
    const std::string_view data = take(width);
    for (int i = width - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(data[i]);
    return value;
  }
  std::string take_line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) fail(fmt::format("cut short at byte {}", at_));
    const std::string line(take(end - at_));
    ++at_;
    return line;
  }
  // LONG1: a signed little-endian integer of any length; more than 8 bytes are out of range for us.
  int64_t take_long() {
    const int width = static_cast<int>(take_uint(1));
    if (width > 8) fail(fmt::format("an integer of {} bytes", width));
    uint64_t value = take_uint(width);
    if (width > 0 && width < 8 && (value >> (8 * width - 1) & 1)) value |= ~uint64_t{0} << (8 * width);
    return static_cast<int64_t>(value);
  }

  void push(Value value) { stack_.push_back(std::move(value)); }
  Value pop() {
    if (stack_.empty()) fail("stack is empty");
    Value value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }
  void put(uint64_t index) {
    if (stack_.empty()) fail("stack is empty");
    memo_.insert_or_assign(index, stack_.back());
  }
  void get(uint64_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail(fmt::format("memo {} is not set", index));
    push(found->second);
  }
  void push_tuple(size_t count) {
    if (count > stack_.size()) fail("stack is empty");
    std::vector<Value> items(std::make_move_iterator(stack_.end() - static_cast<std::ptrdiff_t>(count)),
                             std::make_move_iterator(stack_.end()));
    stack_.resize(stack_.size() - count);
    int depth = 1;
    for (const Value& item : items) {
      if (const Tuple* inner = std::get_if<Tuple>(&item.is)) depth = std::max(depth, inner->depth + 1);
    }
    if (depth > max_depth) fail(fmt::format("tuples nested deeper than {}", max_depth));
    push({Tuple{std::make_shared<const std::vector<Value>>(std::move(items)), depth}});
  }
  void push_marked_tuple() {
    const auto mark = std::find_if(stack_.rbegin(), stack_.rend(),
                                   [](const Value& value) { return std::holds_alternative<Mark>(value.is); });
    if (mark == stack_.rend()) fail("no mark on the stack");
    const auto count = static_cast<size_t>(mark - stack_.rbegin());
    stack_.erase(mark.base() - 1);
    push_tuple(count);
  }
  void push_global(const std::string& name) {
    if (name != rebuild_tensor && name != rebuild_parameter && name != ordered_dict && !storage_types.contains(name)) {
      fail(fmt::format("'{}' is not part of a plain tensor of float16/32/64, bfloat16 or int32/64", printable(name)));
    }
    push({Global{name}});
  }
  // ('storage', type, key, location, numel)
  void push_storage() {
    const Value id = pop();
    const std::vector<Value>& items = *as<Tuple>(id, "storage").items;
    if (items.size() != 5 || as<std::string>(items[0], "storage tag") != "storage") fail("unknown persistent id");
    const auto type = storage_types.find(as<Global>(items[1], "storage type").name);
    if (type == storage_types.end()) fail("storage type is missing");
    push({Storage{type->second, as<std::string>(items[2], "storage key"), as<int64_t>(items[4], "storage size")}});
  }
  void reduce() {
    const Value arguments = pop();
    const Value function = pop();
    const std::vector<Value>& items = *as<Tuple>(arguments, "arguments").items;
    const std::string& name = as<Global>(function, "function").name;
    if (name == ordered_dict) {
      if (!items.empty()) fail("an OrderedDict that is not empty");
      push({OrderedDict{}});
    } else if (name == rebuild_tensor) {  // (storage, offset, sizes, strides, requires_grad, hooks)
      if (items.size() != 6) fail(fmt::format("a tensor record of {} fields, not 6", items.size()));
      const Storage& storage = as<Storage>(items[0], "storage");
      TensorRecord record{storage.dtype,
                          storage.key,
                          storage.numel,
                          as<int64_t>(items[1], "offset"),
                          as_dims(items[2], "sizes"),
                          as_dims(items[3], "strides")};
      check_bounds(record);
      push({std::move(record)});
    } else if (name == rebuild_parameter) {  // (tensor, requires_grad, hooks)
      if (items.size() != 3) fail(fmt::format("a parameter record of {} fields, not 3", items.size()));
      push({as<TensorRecord>(items[0], "tensor")});
    } else {
      fail(fmt::format("'{}' is called", name));
    }
  }

  // One opcode. Returns a value at STOP only.
  std::optional<Value> step() {
    const auto opcode = static_cast<unsigned char>(take_uint(1));
    switch (opcode) {
      case 0x80:  // PROTO
        if (const uint64_t protocol = take_uint(1); protocol < 2 || protocol > 5) {
          fail(fmt::format("protocol {}", protocol));
        }
        break;
      case 0x95:
        take_uint(8);
        break;     // FRAME: a hint only
      case 'c': {  // GLOBAL
        const std::string module = take_line();
        push_global(module + "." + take_line());
        break;
      }
      case 0x93: {  // STACK_GLOBAL
        const Value name = pop();
        const Value module = pop();
        push_global(as<std::string>(module, "module") + "." + as<std::string>(name, "name"));
        break;
      }
      case 'q':
        put(take_uint(1));
        break;  // BINPUT
      case 'r':
        put(take_uint(4));
        break;  // LONG_BINPUT
      case 0x94:
        put(memo_.size());
        break;  // MEMOIZE
      case 'h':
        get(take_uint(1));
        break;  // BINGET
      case 'j':
        get(take_uint(4));
        break;  // LONG_BINGET
      case '(':
        push({Mark{}});
        break;  // MARK
      case 'N':
        push({None{}});
        break;  // NONE
      case 0x88:
        push({true});
        break;  // NEWTRUE
      case 0x89:
        push({false});
        break;  // NEWFALSE
      case 'X':
        push({std::string(take(take_uint(4)))});
        break;  // BINUNICODE
      case 0x8c:
        push({std::string(take(take_uint(1)))});
        break;  // SHORT_BINUNICODE
      case 'J':
        push({int64_t{static_cast<int32_t>(take_uint(4))}});
        break;  // BININT
      case 'K':
        push({static_cast<int64_t>(take_uint(1))});
        break;  // BININT1
      case 'M':
        push({static_cast<int64_t>(take_uint(2))});
        break;  // BININT2
      case 0x8a:
        push({take_long()});
        break;  // LONG1
      case ')':
        push_tuple(0);
        break;  // EMPTY_TUPLE
      case 0x85:
        push_tuple(1);
        break;  // TUPLE1
      case 0x86:
        push_tuple(2);
        break;  // TUPLE2
      case 0x87:
        push_tuple(3);
        break;  // TUPLE3
      case 't':
        push_marked_tuple();
        break;  // TUPLE
      case 'Q':
        push_storage();
        break;  // BINPERSID
      case 'R':
        reduce();
        break;  // REDUCE
      case '.':
        return pop();  // STOP
      case '}':
        fail("the file holds a dict (a state_dict?), not one plain tensor; save the one tensor");
      case ']':
        fail("the file holds a list, not one plain tensor; save the one tensor");
      default:
        fail(fmt::format("opcode 0x{:02x} at byte {} is not part of a plain tensor", opcode, at_ - 1));
    }
    return std::nullopt;
  }

  std::string_view bytes_;
  size_t at_ = 0;
  std::vector<Value> stack_;
  std::map<uint64_t, Value> memo_;
};

}  // namespace

TensorRecord read_tensor_pickle(std::string_view pickle) { return Machine(pickle).run(); }

}  // namespace hesper
