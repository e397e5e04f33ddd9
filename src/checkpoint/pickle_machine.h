#pragma once

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "checkpoint/torch_pickle.h"

namespace hesper::pickle {

// What a pickle builds here. Containers, storages and tensors lie in the machine, values point to them by number: a
// value is small, cycles are harmless, and nothing recurses. Texts lie in the pickle's own bytes.
struct Mark {};
struct None {};
struct LongInteger {  // of more than 8 bytes, little-endian
  std::string_view bytes;
};
struct Global {
  std::string_view name;  // on the list that the machine knows
};
struct Tuple {
  size_t number;
};
struct List {
  size_t number;
};
struct Dict {  // key, value, key, value, ...
  size_t number;
};
struct Storage {
  size_t number;
};
struct TensorNumber {
  size_t number;
};
using Value = std::variant<Mark, None, bool, int64_t, double, LongInteger, std::string_view, Global, Tuple, List, Dict,
                           Storage, TensorNumber>;

std::string_view kind_of(const Value& value);  // "a dict", for messages

// What is in a storage of the file.
struct StorageRecord {
  c10::ScalarType dtype;
  int64_t numel;
};

// Runs the pickles of torch.save. Nothing is executed: of the opcodes and globals those that tensors need are
// understood, any other is refused by name. The memory taken is bounded by a multiple of the bytes read, and by limits.
class Machine {
 public:
  explicit Machine(std::string_view bytes, size_t begin = 0) : bytes_(bytes), at_(begin) {}

  // Runs one pickle to its STOP; the next call goes on behind it with a fresh stack and memo.
  Value run();

  size_t position() const { return at_; }
  const std::vector<Value>& items(const Tuple& tuple) const { return containers_[tuple.number]; }
  const std::vector<Value>& items(const List& list) const { return containers_[list.number]; }
  const std::vector<Value>& items(const Dict& dict) const { return containers_[dict.number]; }
  const TensorRecord& tensor(const TensorNumber& tensor) const { return tensors_[tensor.number]; }
  const std::map<std::string, StorageRecord, std::less<>>& storages() const { return storages_; }

 private:
  std::string_view take(uint64_t size);
  uint64_t take_uint(int width);
  std::string_view take_line();
  Value take_long();

  void push(Value value);
  Value pop();
  const Value& top() const;
  std::vector<Value> pop_to_mark();
  void put(uint64_t index);
  void get(uint64_t index);
  size_t new_container(std::vector<Value> items);
  void push_tuple(size_t count);
  void push_global(std::string_view module, std::string_view name);
  void push_storage();
  void append(std::vector<Value> items);
  void set_items(const std::vector<Value>& items);
  void build();
  void reduce();
  bool step();

  std::vector<int64_t> dims(const Value& value, std::string_view what) const;

  std::string_view bytes_;
  size_t at_;
  std::vector<Value> stack_;
  std::unordered_map<uint64_t, Value> memo_;
  std::vector<std::vector<Value>> containers_;
  std::vector<TensorRecord> tensors_;
  std::map<std::string, StorageRecord, std::less<>> storages_;  // by key
  std::vector<std::string_view> keys_;                          // of Storage values
};

[[noreturn]] void fail(const std::string& what);  // std::runtime_error "pickle: what"

// The value as a T; refuses another kind, `what` being what was expected there.
template <typename T>
const T& as(const Value& value, std::string_view what) {
  if (const T* typed = std::get_if<T>(&value)) return *typed;
  fail(std::string(what) + " is missing or of the wrong kind");
}

}  // namespace hesper::pickle
