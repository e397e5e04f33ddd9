#include "ops/readout.h"

#include "ops/directions.h"

namespace hesper {

Readout::Readout(const Selection& selection, int64_t rows, at::Device device, Products products)
    : selection_(&selection),
      products_(products),
      values_(at::zeros({rows, selection.size()}, at::TensorOptions(at::kDouble).device(device))) {}

Readout::Readout(const Directions& directions, int64_t rows, at::Device device)
    : directions_(&directions),
      values_(at::zeros({rows, directions.count()}, at::TensorOptions(at::kDouble).device(device))) {}

Readout Readout::of(const Selection& selection, const Directions& directions, int64_t rows, at::Device device,
                    Products products) {
  return directions.whole_tensors() ? Readout(directions, rows, device) : Readout(selection, rows, device, products);
}

Readout Readout::cut() const {
  Readout out;
  out.selection_ = selection_;
  out.directions_ = directions_;
  out.products_ = products_;
  return out;
}

bool Readout::wants(int parameter) const {
  if (parameter < 0) return false;
  if (directions_) return directions_->touches(parameter);
  const SelectedPart* part = selection_->find(parameter);
  return part && part->size > 0;
}

// product: (K, |rows|, |cols|) over the part's distinct rows and columns
void Readout::add(const SelectedPart& part, const Tensor& product, int64_t first) {
  const Tensor flat = product.flatten(1).to(part.device());
  add(part.begin, part.whole ? flat : flat.index_select(1, part.row_at * part.cols.numel() + part.col_at), first);
}

void Readout::add(int64_t begin, const Tensor& mine, int64_t first) {
  if (values_.defined())
    values_.narrow(0, first, mine.size(0)).narrow(1, begin, mine.size(1)).add_(mine.to(values_.device()));
  else
    pending_.push_back({first, begin, mine});
}

void Readout::commit(Readout& total) {
  for (const Pending& p : pending_) total.add(p.begin, p.values, p.first);
  pending_.clear();
}

void Readout::outer(int parameter, const Tensor& a, const Tensor& b, int64_t first) {
  if (!wants(parameter) || !a.defined() || !b.defined()) return;
  if (directions_) return add(0, directions_->project_outer(parameter, a, b), first);
  const SelectedPart& part = *selection_->find(parameter);
  auto cut = [&](const Tensor& t, const Tensor& index) { return part.whole ? t : t.index_select(t.dim() - 1, index); };
  const bool one = a.dim() == 2 && b.dim() == 2;
  const Tensor product =
      token_product(cut(a, part.rows), cut(b, part.cols), part.whole && !one ? products_ : Products::full);
  add(part, product.dim() == 2 ? product.unsqueeze(0) : product, first);
}

void Readout::column_sums(int parameter, const Tensor& a) {
  if (!wants(parameter) || !a.defined()) return;
  if (directions_) return add(0, directions_->project_columns(parameter, a));
  const SelectedPart& part = *selection_->find(parameter);
  add(part, a.sum(1, false, at::kDouble).index_select(1, part.cols).unsqueeze(1));
}

void Readout::table_rows(int parameter, const Tensor& ids, const Tensor& a) {
  if (!wants(parameter) || !a.defined()) return;
  if (directions_) return add(0, directions_->project_rows(parameter, ids, a));
  const SelectedPart& part = *selection_->find(parameter);
  // (tokens, |rows|) or (K, tokens, |rows|): which selected row each token reads
  const Tensor hit = ids.unsqueeze(-1).eq(part.rows.to(ids.device())).to(a.scalar_type());
  add(part, at::matmul(hit.transpose(-1, -2), a.index_select(2, part.cols.to(a.device()))));
}

}  // namespace hesper
