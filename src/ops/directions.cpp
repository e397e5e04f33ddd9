#include "ops/directions.h"

#include <algorithm>
#include <map>

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
    const Tensor flat = part.entries(low - part.begin, high - part.begin);
    Start s{.parameter = part.parameter, .width = part.columns, .reach = high - begin};
    s.direction = at::arange(low - begin, high - begin, flat.options());
    s.row = at::floor_divide(flat, part.columns);
    s.col = at::remainder(flat, part.columns);
    d.starts_.push_back(std::move(s));
  }
  return d;
}

Directions Directions::dense(const Selection& selection, const Tensor& v, at::ScalarType dtype) {
  Directions d;
  d.count_ = v.size(0);
  d.v_ = v;
  d.dtype_ = dtype;
  for (const SelectedPart& part : selection.parts()) {
    Start s{.parameter = part.parameter, .width = part.columns, .reach = d.count_};
    s.rows = part.rows, s.cols = part.cols, s.whole = part.whole;
    const Tensor mine = v.narrow(1, part.begin, part.size).to(part.device(), dtype);
    const int64_t r = part.rows.numel(), c = part.cols.numel();
    if (part.whole) {
      s.values = mine.reshape({d.count_, r, c});
    } else {
      s.values = at::zeros({d.count_, r * c}, mine.options());
      s.values.index_copy_(1, part.row_at * c + part.col_at, mine);
      s.values = s.values.view({d.count_, r, c});
    }
    d.starts_.push_back(std::move(s));
  }
  return d;
}

Directions Directions::moves(const std::vector<Move>& moves, int64_t count, at::ScalarType dtype, at::Device device) {
  Directions d;
  d.count_ = count;
  d.dtype_ = dtype;
  d.whole_tensors_ = true;
  std::map<int, std::vector<const Move*>> by_parameter;
  for (const Move& move : moves) by_parameter[move.parameter].push_back(&move);
  for (const auto& [parameter, mine] : by_parameter) {
    std::vector<int64_t> direction;
    Tensors values;
    for (const Move* move : mine) {
      direction.push_back(move->direction);
      const Tensor& v = move->values;
      values.push_back(v.to(device, dtype).view({1, v.dim() == 1 ? 1 : v.size(0), v.size(-1)}));
    }
    Start s{.parameter = parameter, .width = values[0].size(2)};
    s.reach = *std::max_element(direction.begin(), direction.end()) + 1;
    s.direction = at::tensor(direction, at::kLong).to(device);
    s.values = values.size() == 1 ? values[0] : at::cat(values);
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

void Directions::add_linear(int parameter, const Tensor& x, Tensor& y_dot, int64_t alive, int64_t out,
                            Products products) const {
  const Start* s = find(parameter);
  if (!s) return;
  if (!y_dot.defined()) y_dot = at::zeros({alive, x.size(0), out}, x.options());
  if (s->unit()) {
    // y_dot[k, :, row_k] += x[:, col_k]
    add_columns(y_dot, s->direction, s->row, x.index_select(1, s->col).t());
  } else if (s->direction.defined()) {
    y_dot.index_add_(0, s->direction, at::matmul(x, s->values.transpose(1, 2)));
  } else if (s->whole && splits(products)) {
    // One product for all directions: (rows, K out)
    const Tensor moved = times(x, s->values.reshape({count_ * out, -1}).t(), products);
    y_dot.add_(moved.view({x.size(0), count_, out}).transpose(0, 1));
  } else {
    const Tensor moved = at::matmul(x.index_select(1, s->cols), s->values.transpose(1, 2));  // (K, rows, |rows|)
    y_dot.index_add_(2, s->rows, moved);
  }
}

void Directions::add_linear_transposed(int parameter, const Tensor& y_bar, Tensor& x_bar_dot, int64_t alive, int64_t in,
                                       Products products) const {
  const Start* s = find(parameter);
  if (!s) return;
  if (!x_bar_dot.defined()) x_bar_dot = at::zeros({alive, y_bar.size(0), in}, y_bar.options());
  if (s->unit()) {
    add_columns(x_bar_dot, s->direction, s->col, y_bar.index_select(1, s->row).t());
  } else if (s->direction.defined()) {
    x_bar_dot.index_add_(0, s->direction, at::matmul(y_bar, s->values));
  } else if (s->whole && splits(products)) {
    const Tensor side_by_side = s->values.transpose(0, 1).reshape({y_bar.size(1), count_ * in});
    x_bar_dot.add_(times(y_bar, side_by_side, products).view({y_bar.size(0), count_, in}).transpose(0, 1));
  } else {
    x_bar_dot.index_add_(2, s->cols, at::matmul(y_bar.index_select(1, s->rows), s->values));
  }
}

Tensor Directions::vector(int parameter, int64_t alive) const {
  const Start* s = find(parameter);
  if (!s) return {};
  const auto device = s->unit() ? s->direction.device() : s->values.device();
  Tensor w = at::zeros({alive, 1, s->width}, at::TensorOptions().dtype(dtype_).device(device));
  if (s->unit())
    add_columns(w, s->direction, s->col, at::ones({s->col.numel(), 1}, w.options()));
  else if (s->direction.defined())
    w.index_copy_(0, s->direction, s->values);
  else
    w.index_copy_(2, s->cols, s->values);
  return w;
}

Tensor Directions::lookup(int parameter, const Tensor& ids, int64_t alive) const {
  const Start* s = find(parameter);
  if (!s) return {};
  const int64_t rows = ids.numel();
  Tensor x = at::zeros({alive, rows, s->width}, at::TensorOptions().dtype(dtype_).device(ids.device()));
  // A tied table may lie on the device of the head.
  const auto here = [&](const Tensor& t) { return t.to(ids.device()); };
  if (s->unit()) {
    const Tensor hit = here(s->row).unsqueeze(1).eq(ids.unsqueeze(0)).to(dtype_);  // (m, rows)
    add_columns(x, here(s->direction), here(s->col), hit);
  } else if (s->direction.defined()) {
    x.index_copy_(0, here(s->direction), here(s->values).index_select(1, ids));
  } else {
    const Tensor hit = ids.unsqueeze(1).eq(here(s->rows).unsqueeze(0)).to(dtype_);  // (rows, |rows|)
    x.index_copy_(2, here(s->cols), at::matmul(hit, here(s->values)));
  }
  return x;
}

/// (R, m) of the directions of one start -> (R, K).
Tensor Directions::projected(const Start& s, const Tensor& mine) const {
  if (!s.direction.defined()) return mine;
  return at::zeros({mine.size(0), count_}, mine.options()).index_copy_(1, s.direction, mine);
}

Tensor Directions::project_outer(int parameter, const Tensor& a, const Tensor& b) const {
  const Start& s = *find(parameter);
  const Tensor v = s.values.to(a.scalar_type());
  const Tensor x = s.rows.defined() ? a.index_select(a.dim() - 1, s.rows) : a;
  const Tensor y = s.cols.defined() ? b.index_select(b.dim() - 1, s.cols) : b;
  if (x.dim() == 2 && y.dim() == 3) return projected(s, piecewise_product(y, at::matmul(x, v)));
  if (x.dim() == 3 && y.dim() == 2) return projected(s, piecewise_product(x, at::matmul(y, v.transpose(1, 2))));
  Tensors rows;  // one row of R at a time
  for (int64_t r = 0; r < (x.dim() == 3 ? x.size(0) : 1); ++r) {
    const Tensor p = x.dim() == 3 ? x[r] : x, q = y.dim() == 3 ? y[r] : y;
    rows.push_back(piecewise_product(q.unsqueeze(0), at::matmul(p, v)));
  }
  return projected(s, at::cat(rows));
}

Tensor Directions::project_columns(int parameter, const Tensor& a) const {
  const Start& s = *find(parameter);
  const Tensor sums = a.sum(1, false, at::kDouble);  // (R, width)
  const Tensor mine = s.cols.defined() ? sums.index_select(1, s.cols) : sums;
  return projected(s, mine.mm(s.values.select(1, 0).to(at::kDouble).t()));
}

Tensor Directions::project_rows(int parameter, const Tensor& ids, const Tensor& a) const {
  const Start& s = *find(parameter);
  Tensors rows;
  for (int64_t r = 0; r < a.size(0); ++r) {
    const Tensor mine = ids.dim() == 2 ? ids[r] : ids;
    Tensor moved;  // (m, tokens, |cols|)
    if (s.rows.defined())
      moved = at::matmul(mine.unsqueeze(1).eq(s.rows).to(a.scalar_type()), s.values.to(a.scalar_type()));
    else
      moved = s.values.index_select(1, mine).to(a.scalar_type());
    const Tensor x = s.cols.defined() ? a[r].index_select(1, s.cols) : a[r];
    rows.push_back(piecewise_product(x.unsqueeze(0), moved));
  }
  return projected(s, at::cat(rows));
}

Tensor Directions::apply(const Tensor& m) const {
  return v_.defined() ? v_.to(m.device(), at::kDouble).matmul(m.to(at::kDouble))
                      : m.narrow(0, begin_, count_).to(at::kDouble);
}

}  // namespace hesper
