#include "ops/directions.h"

#include <algorithm>

namespace hesper {
namespace {
// target[direction_m, :, channel_m] += value[m, :]
void add_columns(Tensor& target, const Tensor& direction, const Tensor& channel, const Tensor& value) {
  target.index_put_(c10::List<std::optional<Tensor>>({direction, std::nullopt, channel}), value, true);
}
}  // namespace

Directions Directions::units(const Selection& selection, int64_t begin, int64_t end, at::ScalarType dtype) {
  Directions d;
  d.count_ = end - begin;
  d.begin_ = begin;
  d.dtype_ = dtype;
  for (const SelectedPart& part : selection.parts()) {
    const int64_t low = std::max(begin, part.begin), high = std::min(end, part.begin + part.size);
    if (low >= high) continue;
    const Tensor flat = part.flat.narrow(0, low - part.begin, high - low);
    Start s{part.parameter,
            part.columns,
            high - begin,
            at::arange(low - begin, high - begin, flat.options()),
            {},
            {},
            {},
            {},
            {}};
    s.row = at::floor_divide(flat, part.columns);
    s.col = at::remainder(flat, part.columns);
    d.starts_.push_back(std::move(s));
  }
  return d;
}

Directions Directions::dense(const Selection& selection, const Tensor& v, at::ScalarType dtype) {
  Directions d;
  d.count_ = v.size(0);
  d.v_ = v.to(at::kDouble);
  d.dtype_ = dtype;
  for (const SelectedPart& part : selection.parts()) {
    Start s{part.parameter, part.columns, d.count_, {}, {}, {}, part.rows, part.cols, {}};
    const Tensor mine = v.narrow(1, part.begin, part.size).to(dtype);
    const int64_t r = part.rows.numel(), c = part.cols.numel();
    s.values = at::zeros({d.count_, r * c}, mine.options());
    s.values.index_copy_(1, part.row_at * c + part.col_at, mine);
    s.values = s.values.view({d.count_, r, c});
    d.starts_.push_back(std::move(s));
  }
  return d;
}

const Directions::Start* Directions::find(int parameter) const {
  if (parameter < 0) return nullptr;
  for (const Start& s : starts_)
    if (s.parameter == parameter) return &s;
  return nullptr;
}

bool Directions::touches(int parameter) const { return find(parameter) != nullptr; }

int64_t Directions::reach(int parameter) const {
  const Start* s = find(parameter);
  return s ? s->reach : 0;
}

void Directions::add_linear(int parameter, const Tensor& x, Tensor& y_dot, int64_t alive, int64_t out) const {
  const Start* s = find(parameter);
  if (!s) return;
  if (!y_dot.defined()) y_dot = at::zeros({alive, x.size(0), out}, x.options());
  if (s->direction.defined()) {
    // y_dot[k, :, row_k] += x[:, col_k]
    add_columns(y_dot, s->direction, s->row, x.index_select(1, s->col).t());
  } else {
    const Tensor moved = at::matmul(x.index_select(1, s->cols), s->values.transpose(1, 2));  // (K, rows, |rows|)
    y_dot.index_add_(2, s->rows, moved);
  }
}

void Directions::add_linear_transposed(int parameter, const Tensor& y_bar, Tensor& x_bar_dot, int64_t alive,
                                       int64_t in) const {
  const Start* s = find(parameter);
  if (!s) return;
  if (!x_bar_dot.defined()) x_bar_dot = at::zeros({alive, y_bar.size(0), in}, y_bar.options());
  if (s->direction.defined()) {
    add_columns(x_bar_dot, s->direction, s->col, y_bar.index_select(1, s->row).t());
  } else {
    x_bar_dot.index_add_(2, s->cols, at::matmul(y_bar.index_select(1, s->rows), s->values));
  }
}

Tensor Directions::vector(int parameter, int64_t alive) const {
  const Start* s = find(parameter);
  if (!s) return {};
  const auto device = s->direction.defined() ? s->direction.device() : s->values.device();
  Tensor w = at::zeros({alive, 1, s->width}, at::TensorOptions().dtype(dtype_).device(device));
  if (s->direction.defined())
    add_columns(w, s->direction, s->col, at::ones({s->col.numel(), 1}, w.options()));
  else
    w.index_copy_(2, s->cols, s->values);
  return w;
}

Tensor Directions::lookup(int parameter, const Tensor& ids, int64_t alive) const {
  const Start* s = find(parameter);
  if (!s) return {};
  const int64_t rows = ids.numel();
  const auto options = at::TensorOptions().dtype(dtype_).device(ids.device());
  if (s->direction.defined()) {
    const Tensor hit = s->row.unsqueeze(1).eq(ids.unsqueeze(0)).to(dtype_);  // (m, rows)
    Tensor x = at::zeros({alive, rows, s->width}, options);
    add_columns(x, s->direction, s->col, hit);
    return x;
  }
  const Tensor hit = ids.unsqueeze(1).eq(s->rows.unsqueeze(0)).to(dtype_);  // (rows, |rows|)
  Tensor x = at::zeros({alive, rows, s->width}, options);
  x.index_copy_(2, s->cols, at::matmul(hit, s->values));
  return x;
}

Tensor Directions::apply(const Tensor& m) const {
  return v_.defined() ? v_.matmul(m.to(at::kDouble)) : m.narrow(0, begin_, count_).to(at::kDouble);
}

}  // namespace hesper
