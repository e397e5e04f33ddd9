#include "ops/parameters.h"

namespace hesper {

Parameters::Parameters(Tensors stored, at::ScalarType working, at::Device device, Products products)
    : stored_(std::move(stored)), working_(working), device_(device), products_(products) {
  kept_.reserve(stored_.size());
  for (const Tensor& t : stored_) kept_.push_back(t.to(device, working));
}

Tensor Parameters::get(int p, at::ScalarType dtype) const {
  if (dtype == working_) return kept_[p];
  // What the kept copy holds exactly is raised from there: on a device, nothing is sent again.
  const bool exact = c10::promoteTypes(stored_[p].scalar_type(), working_) == working_;
  return (exact ? kept_[p] : stored_[p].to(device_)).to(dtype);
}

Parameters Parameters::with(const std::vector<std::pair<int, Tensor>>& replaced) const {
  Parameters out = *this;
  for (const auto& [p, value] : replaced) {
    out.stored_[p] = value;
    out.kept_[p] = value.to(device_, working_);
  }
  return out;
}

}  // namespace hesper
