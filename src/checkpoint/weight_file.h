#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/tensor_info.h"
#include "files/mapped_file.h"

namespace hesper {

// One memory-mapped file of named tensors, whatever its format. Tensors made by view() keep the mapping alive; they are
// read-only by contract.
class WeightFile {
 public:
  virtual ~WeightFile() = default;

  const std::string& path() const { return mapping_->path(); }
  std::span<const std::byte> bytes() const { return mapping_->bytes(); }  // the whole file
  virtual std::string format() const = 0;                                 // "safetensors", for people
  const std::vector<TensorInfo>& tensors() const { return tensors_; }

  bool has(std::string_view name) const { return index_.contains(name); }
  // Both throw std::runtime_error when there is no such tensor.
  const TensorInfo& info(std::string_view name) const { return tensors_[place(name)]; }
  at::Tensor view(std::string_view name) const { return value(place(name)); }  // dtype and shape of its info

 protected:
  explicit WeightFile(const std::string& path) : mapping_(std::make_shared<const MappedFile>(path)) {}
  // The names must differ.
  void set_tensors(std::vector<TensorInfo> tensors);
  virtual at::Tensor value(size_t place) const = 0;  // of tensors()[place]

  // The elements at byte `begin`, which the caller has checked to lie in the file: no copy where they are contiguous
  // and aligned to their size, otherwise one.
  at::Tensor mapped(uint64_t begin, uint64_t end, c10::ScalarType dtype, at::IntArrayRef shape,
                    at::IntArrayRef strides) const;
  at::Tensor mapped(const TensorInfo& info) const;  // contiguous

 private:
  size_t place(std::string_view name) const;

  std::shared_ptr<const MappedFile> mapping_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, size_t, std::less<>> index_;  // name -> place in tensors_
};

}  // namespace hesper
