#include "hessian/unit_sums.h"

#include <numeric>

namespace hesper {
namespace {

std::vector<int64_t> count_up(int64_t n) {
  std::vector<int64_t> out(static_cast<size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

std::vector<int64_t> to_vector(const at::Tensor& t) {
  return {t.const_data_ptr<int64_t>(), t.const_data_ptr<int64_t>() + t.numel()};
}

bool ends_with(const std::string& text, const std::string& end) { return text.ends_with(end); }

}  // namespace

bool is_rectangle(const SelectedPart& part, const std::vector<int64_t>& shape) {
  if (shape.size() != 2) return false;
  if (part.whole) return true;
  const int64_t rows = part.rows.numel(), cols = part.cols.numel();
  return rows * cols == part.size &&
         at::equal(part.flat, (part.rows.unsqueeze(1) * part.columns + part.cols).flatten());
}

UnitSums::UnitSums(const SelectedTensor& tensor, const SelectedPart& part, at::Tensor weights,
                   const ModelConfig& config, int64_t group_size)
    : matrix_(is_rectangle(part, tensor.shape)),
      whole_(part.whole),
      group_size_(group_size),
      half_squares_(weights.square().div_(2)) {
  if (part.whole)
    shape_ = tensor.shape;
  else if (matrix_)
    shape_ = {part.rows.numel(), part.cols.numel()};
  else
    shape_ = {part.size};
  const auto add = [&](const char* unit, std::vector<int64_t> numbers, int64_t stride = 1) {
    SumRun run{unit, false, size_, static_cast<int64_t>(numbers.size()) * stride, stride, std::move(numbers)};
    size_ += run.count;
    runs_.push_back(std::move(run));
  };
  add("layer", {0});
  if (matrix_) {
    add("row", to_vector(part.rows));
    add("column", to_vector(part.cols));
  }
  if (matrix_ && whole_) {
    const bool into_heads =
        ends_with(tensor.layer, "q_proj") || ends_with(tensor.layer, "k_proj") || ends_with(tensor.layer, "v_proj");
    if (into_heads || ends_with(tensor.layer, "o_proj") || ends_with(tensor.layer, "out_proj")) {
      head_dim_ = config.head_dim;
      head_rows_ = into_heads;
      add("head", count_up(shape_[into_heads ? 0 : 1] / head_dim_));
    }
    add("group", count_up(shape_[0]), (shape_[1] + group_size - 1) / group_size);
  }
  for (size_t i = 0, n = runs_.size(); i < n; ++i) {
    SumRun run = runs_[i];
    run.saliency = true;
    run.begin = size_;
    size_ += run.count;
    runs_.push_back(std::move(run));
  }
}

const SumRun* UnitSums::find(const std::string& unit) const {
  for (const SumRun& run : runs_)
    if (run.unit == unit && !run.saliency) return &run;
  return nullptr;
}

at::Tensor UnitSums::sums_of(const at::Tensor& h) const {
  std::vector<at::Tensor> parts = {h.sum().view({1})};
  if (matrix_) {
    const at::Tensor m = h.view({shape_[0], shape_[1]});
    const at::Tensor rows = m.sum(1), columns = m.sum(0);
    parts.push_back(rows);
    parts.push_back(columns);
    if (head_dim_ > 0) parts.push_back((head_rows_ ? rows : columns).view({-1, head_dim_}).sum(1));
    if (whole_) {
      const int64_t groups = (shape_[1] + group_size_ - 1) / group_size_;
      parts.push_back(
          at::constant_pad_nd(m, {0, groups * group_size_ - shape_[1]}).view({shape_[0] * groups, group_size_}).sum(1));
    }
  }
  return at::cat(parts);
}

at::Tensor UnitSums::of(const at::Tensor& z) const {
  if (!half_squares_there_.defined() || half_squares_there_.device() != z.device())
    half_squares_there_ = half_squares_.to(z.device());
  at::Tensor out = at::empty({z.size(0), size_}, z.options().dtype(at::kDouble));
  for (int64_t k = 0; k < z.size(0); ++k) {  // one at a time: no second copy of z
    const at::Tensor h = z[k].to(at::kDouble);
    out[k].narrow(0, 0, size_ / 2).copy_(sums_of(h));
    out[k].narrow(0, size_ / 2, size_ / 2).copy_(sums_of(h * half_squares_there_));
  }
  return out.cpu();
}

}  // namespace hesper
