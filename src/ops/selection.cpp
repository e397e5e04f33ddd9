#include "ops/selection.h"

#include <fmt/format.h>

#include <stdexcept>

namespace hesper {

void Selection::add(int p, at::IntArrayRef shape, at::Tensor flat) {
  if (has(p)) throw std::invalid_argument(fmt::format("[selection] parameter {} is selected twice", p));
  SelectedPart part;
  part.parameter = p;
  part.begin = size_;
  part.size = flat.numel();
  part.columns = shape.back();
  const int64_t total = c10::multiply_integers(shape);
  flat = flat.to(at::kLong).contiguous();
  if (part.size == 0) throw std::invalid_argument("[selection] no entry of a parameter is selected");
  const int64_t low = flat.min().item<int64_t>(), high = flat.max().item<int64_t>();
  if (low < 0 || high >= total)
    throw std::invalid_argument(
        fmt::format("[selection] index {} is outside a parameter of {} entries", low < 0 ? low : high, total));
  part.whole = part.size == total && at::equal(flat, at::arange(total));
  if (part.whole) {
    part.rows = at::arange(total / part.columns);
    part.cols = at::arange(part.columns);
  } else {
    const auto distinct = std::get<0>(at::_unique(flat));
    if (distinct.numel() != part.size)
      throw std::invalid_argument(
          fmt::format("[selection] {} of {} indices are given twice", part.size - distinct.numel(), part.size));
    std::tie(part.rows, part.row_at) = at::_unique(at::floor_divide(flat, part.columns), true, true);
    std::tie(part.cols, part.col_at) = at::_unique(at::remainder(flat, part.columns), true, true);
  }
  part.flat = flat;
  size_ += part.size;
  parts_.push_back(std::move(part));
}

void Selection::add_whole(int p, at::IntArrayRef shape) { add(p, shape, at::arange(c10::multiply_integers(shape))); }

void Selection::add_moved(int p) {
  if (has(p)) throw std::invalid_argument(fmt::format("[selection] parameter {} is selected twice", p));
  SelectedPart part;
  part.parameter = p;
  part.begin = size_;
  parts_.push_back(std::move(part));
}

const SelectedPart* Selection::find(int p) const {
  for (const SelectedPart& part : parts_)
    if (part.parameter == p) return &part;
  return nullptr;
}

namespace {
void move(SelectedPart& part, at::Device device) {
  for (at::Tensor* t : {&part.flat, &part.rows, &part.cols, &part.row_at, &part.col_at})
    if (t->defined()) *t = t->to(device);
}
}  // namespace

Selection Selection::to(at::Device device) const {
  Selection out = *this;
  for (SelectedPart& part : out.parts_) move(part, device);
  return out;
}

Selection Selection::to(const std::vector<at::Device>& by_parameter) const {
  Selection out = *this;
  for (SelectedPart& part : out.parts_) move(part, by_parameter[part.parameter]);
  return out;
}

}  // namespace hesper
