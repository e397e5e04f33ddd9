#include "ops/readout.h"

namespace hesper {

Readout::Readout(const Selection& selection, int64_t rows, at::Device device)
    : selection_(&selection),
      values_(at::zeros({rows, selection.size()}, at::TensorOptions(at::kDouble).device(device))) {}

// product: (K, |rows|, |cols|) over the part's distinct rows and columns
void Readout::add(const SelectedPart& part, const Tensor& product, int64_t first) {
  const Tensor flat = product.reshape({product.size(0), -1});
  const Tensor mine = part.whole ? flat : flat.index_select(1, part.row_at * part.cols.numel() + part.col_at);
  if (values_.defined())
    values_.narrow(0, first, mine.size(0)).narrow(1, part.begin, part.size).add_(mine);
  else
    pending_.push_back({first, part.begin, mine});
}

void Readout::commit(Readout& total) {
  for (const Pending& p : pending_)
    total.values_.narrow(0, p.first, p.values.size(0)).narrow(1, p.begin, p.values.size(1)).add_(p.values);
  pending_.clear();
}

void Readout::outer(int parameter, const Tensor& a, const Tensor& b, int64_t first) {
  if (!wants(parameter) || !a.defined() || !b.defined()) return;
  const SelectedPart& part = *selection_->find(parameter);
  auto cut = [&](const Tensor& t, const Tensor& index) { return part.whole ? t : t.index_select(t.dim() - 1, index); };
  const Tensor product = at::matmul(cut(a, part.rows).transpose(-1, -2), cut(b, part.cols));
  add(part, product.dim() == 2 ? product.unsqueeze(0) : product, first);
}

void Readout::column_sums(int parameter, const Tensor& a) {
  if (!wants(parameter) || !a.defined()) return;
  add(*selection_->find(parameter),
      a.sum(1, false, at::kDouble).index_select(1, selection_->find(parameter)->cols).unsqueeze(1));
}

void Readout::table_rows(int parameter, const Tensor& ids, const Tensor& a) {
  if (!wants(parameter) || !a.defined()) return;
  const SelectedPart& part = *selection_->find(parameter);
  // (tokens, |rows|) or (K, tokens, |rows|): which selected row each token reads
  const Tensor hit = ids.unsqueeze(-1).eq(part.rows).to(a.scalar_type());
  add(part, at::matmul(hit.transpose(-1, -2), a.index_select(2, part.cols)));
}

}  // namespace hesper
