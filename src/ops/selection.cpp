#include "ops/selection.h"

#include <fmt/format.h>

#include <stdexcept>

namespace hesper {

at::Tensor SelectedPart::entries(int64_t first, int64_t end) const {
  return whole ? at::arange(first, end, rows.options()) : flat.narrow(0, first, end - first);
}

SelectedPart Selection::next(int p) const {
  if (has(p)) throw std::invalid_argument(fmt::format("[selection] parameter {} is selected twice", p));
  SelectedPart part;
  part.parameter = p;
  part.begin = size_;
  return part;
}

void Selection::add(int p, at::IntArrayRef shape, at::Tensor flat) {
  SelectedPart part = next(p);
  part.size = flat.numel();
  part.columns = shape.back();
  const int64_t total = c10::multiply_integers(shape);
  flat = flat.to(at::kLong).contiguous();
  if (part.size == 0) throw std::invalid_argument("[selection] no entry of a parameter is selected");
  const int64_t low = flat.min().item<int64_t>(), high = flat.max().item<int64_t>();
  if (low < 0 || high >= total)
    throw std::invalid_argument(
        fmt::format("[selection] index {} is outside a parameter of {} entries", low < 0 ? low : high, total));
  if (part.size == total && at::equal(flat, at::arange(total))) return add_whole(p, shape);
  const auto distinct = std::get<0>(at::_unique(flat));
  if (distinct.numel() != part.size)
    throw std::invalid_argument(
        fmt::format("[selection] {} of {} indices are given twice", part.size - distinct.numel(), part.size));
  std::tie(part.rows, part.row_at) = at::_unique(at::floor_divide(flat, part.columns), true, true);
  std::tie(part.cols, part.col_at) = at::_unique(at::remainder(flat, part.columns), true, true);
  part.flat = flat;
  size_ += part.size;
  parts_.push_back(std::move(part));
}

void Selection::add_whole(int p, at::IntArrayRef shape) {
  SelectedPart part = next(p);
  part.whole = true;
  part.size = c10::multiply_integers(shape);
  part.columns = shape.back();
  part.rows = at::arange(part.size / part.columns);
  part.cols = at::arange(part.columns);
  size_ += part.size;
  parts_.push_back(std::move(part));
}

void Selection::add_moved(int p) { parts_.push_back(next(p)); }

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
