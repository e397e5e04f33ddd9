#include "ops/parameters.h"

#include <unordered_set>

#include "ops/weight_stream.h"

namespace hesper {
namespace {

constexpr int64_t on_the_way = int64_t{128} << 20;  // bytes to a GPU at a time, besides those in use

Tensor kept(const Tensor& stored, at::ScalarType working, at::Device device) {
  const bool as_stored = kept_as_stored(stored.sizes().size(), stored.scalar_type(), working, device);
  return stored.to(device, as_stored ? stored.scalar_type() : working);
}

}  // namespace

bool kept_as_stored(size_t dimensions, at::ScalarType stored, at::ScalarType working, at::Device device) {
  return !device.is_cpu() && dimensions == 2 && c10::elementSize(stored) < c10::elementSize(working);
}

Parameters::Parameters(Tensors stored, at::ScalarType working, at::Device device, Products products)
    : Parameters(stored, working, device, std::vector<at::Device>(stored.size(), device), products) {}

Parameters::Parameters(Tensors stored, at::ScalarType working, at::Device device, std::vector<at::Device> devices,
                       Products products)
    : stored_(std::move(stored)),
      working_(working),
      device_(device),
      devices_(std::move(devices)),
      products_(products) {
  kept_.resize(stored_.size());
  for (const at::Device there : std::unordered_set<at::Device>(devices_.begin(), devices_.end())) {
    std::vector<int> sent;  // by a stream, which takes them as they are stored: the device converts them
    for (int p = 0; p < count(); ++p) {
      if (devices_[p] != there) continue;
      if (stored_[p].device().is_cpu() && !there.is_cpu())
        sent.push_back(p);
      else
        kept_[p] = kept(stored_[p], working, there);
    }
    if (sent.empty()) continue;
    WeightStream stream(stored_, sent, there, on_the_way);
    for (int p : sent) kept_[p] = kept(stream.fetch(p), working, there);
  }
}

Parameters Parameters::streamed(Tensors stored, at::ScalarType working, at::Device device, Products products,
                                std::vector<int> order, int64_t bytes) {
  Parameters out({}, working, device, products);
  for (const Tensor& t : stored) out.kept_.push_back(t.numel() <= small_parameter ? t.to(device, working) : Tensor());
  std::erase_if(order, [&](int p) { return out.kept_[p].defined(); });
  if (!device.is_cpu()) out.stream_ = std::make_shared<WeightStream>(stored, std::move(order), device, bytes);
  out.devices_.assign(stored.size(), device);
  out.stored_ = std::move(stored);
  return out;
}

Tensor Parameters::held(int p) const {
  if (kept_[p].defined()) return kept_[p];
  return stream_ ? stream_->fetch(p) : stored_[p];
}

Tensor Parameters::get(int p, at::ScalarType dtype) const {
  const Tensor here = held(p);
  if (here.scalar_type() == dtype) return here;
  // What is held exactly is raised from there: on a device, nothing is sent again.
  const bool exact = c10::promoteTypes(stored_[p].scalar_type(), here.scalar_type()) == here.scalar_type();
  return (exact ? here : stored_[p].to(devices_[p])).to(dtype);
}

Tensor Parameters::factor(int p) const {
  if (splits(products_))
    if (const Tensor here = held(p); here.scalar_type() == at::kBFloat16) return here;
  return get(p, working_);
}

Parameters Parameters::with(Products products) const {
  Parameters out = *this;
  out.products_ = products;
  return out;
}

Parameters Parameters::with(const std::vector<std::pair<int, Tensor>>& replaced) const {
  Parameters out = *this;
  for (const auto& [p, value] : replaced) {
    out.stored_[p] = value;
    out.kept_[p] = value.to(devices_[p], working_);
  }
  return out;
}

}  // namespace hesper
