#pragma once
// How attention_cpu.cpp looks at its tensors: heads of a row, and the rows of one task.
#include <ATen/ATen.h>

#include <type_traits>

#include "ops/blas.h"

namespace hesper::attention_cpu {

/// A tensor ((K,) T, n*D) seen by heads of width D.
template <class T>
struct Heads {
  T* data = nullptr;
  int64_t tokens = 0, width = 0, stride = 0;  // T, D, n*D

  Heads() = default;
  Heads(const at::Tensor& x, int64_t width_)
      : data(x.defined() ? x.data_ptr<std::remove_const_t<T>>() : nullptr),
        tokens(x.defined() ? x.size(-2) : 0),
        width(width_),
        stride(x.defined() ? x.size(-1) : 0) {}
  explicit operator bool() const { return data != nullptr; }
  T* row(int64_t direction, int64_t token, int64_t head) const {
    return data + (direction * tokens + token) * stride + head * width;
  }
  blas::Matrix<std::remove_const_t<T>> rows(int64_t direction, int64_t begin, int64_t count, int64_t head) const {
    return {row(direction, begin, head), count, width, stride};
  }
};

/// The directions and the key/value head of one task, and the rows of one of its query heads in turn.
struct Block {
  int64_t head, kv_head, begin, rows, keys;  // rows [begin, keys) see keys [0, keys) at most
};

}  // namespace hesper::attention_cpu
