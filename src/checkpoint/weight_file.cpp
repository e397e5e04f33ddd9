#include "checkpoint/weight_file.h"

#include <ATen/ATen.h>
#include <c10/util/accumulate.h>
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <stdexcept>

#include "files/printable.h"

namespace hesper {

void WeightFile::set_tensors(std::vector<TensorInfo> tensors) {
  tensors_ = std::move(tensors);
  for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

size_t WeightFile::place(std::string_view name) const {
  const auto it = index_.find(name);
  if (it == index_.end()) throw std::runtime_error(fmt::format("{}: no tensor {}", path(), printable(name)));
  return it->second;
}

at::Tensor WeightFile::mapped(uint64_t begin, uint64_t end, c10::ScalarType dtype, at::IntArrayRef shape,
                              at::IntArrayRef strides) const {
  const auto options = at::TensorOptions().dtype(dtype);
  if (begin == end) return at::empty(shape, options);
  const auto place = bytes().subspan(begin, end - begin);
  if (std::bit_cast<uintptr_t>(place.data()) % c10::elementSize(dtype) != 0) {
    const at::Tensor copy = at::empty({static_cast<int64_t>(place.size() / c10::elementSize(dtype))}, options);
    std::memcpy(copy.data_ptr(), place.data(), place.size());
    return copy.as_strided(shape, strides).contiguous();
  }
  // from_blob wants a mutable pointer; nothing writes through it.
  void* data = const_cast<std::byte*>(place.data());
  return at::from_blob(
             data, shape, strides, [keep = mapping_](void*) {}, options)
      .contiguous();
}

at::Tensor WeightFile::mapped(const TensorInfo& info) const {
  std::vector<int64_t> strides(info.shape.size());
  int64_t stride = 1;
  for (size_t i = strides.size(); i-- > 0; stride *= info.shape[i]) strides[i] = stride;
  return mapped(info.begin, info.end, info.dtype, info.shape, strides);
}

}  // namespace hesper
