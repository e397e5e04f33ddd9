#include "ops/op_world.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "primal/primal.h"

namespace hesper::test {

OpWorld::OpWorld(int64_t windows, int64_t length, int64_t vocab) {
  const Tensor ids = at::randint(vocab, {windows, length}, at::kLong);
  if (length > 1) {
    tokens = make_tokens(ids, ids, at::kCPU);
  } else {  // a window of one token predicts nothing; an op may still stand on it
    const int64_t rows = windows * length;
    tokens = {windows, length, 0, ids.flatten(), at::zeros({rows}, at::kLong), at::ones({rows}, at::kDouble)};
  }
}

void OpWorld::select(int64_t m) {
  for (size_t p = 0; p < parameters.size(); ++p) {
    const int64_t total = parameters[p].numel();
    selection.add(static_cast<int>(p), parameters[p].sizes(), at::randperm(total).narrow(0, 0, std::min(m, total)));
  }
}

void OpWorld::select_all() {
  for (size_t p = 0; p < parameters.size(); ++p) selection.add_whole(static_cast<int>(p), parameters[p].sizes());
}

double dot(const Point& a, const Point& b) {
  double sum = a.theta.numel() > 0 ? a.theta.dot(b.theta).item<double>() : 0;
  for (size_t i = 0; i < a.x.size(); ++i) sum += (a.x[i] * b.x[i]).sum().item<double>();
  return sum;
}

Tensors list(const Point& p) {
  Tensors out = p.x;
  out.push_back(p.theta);
  return out;
}

Point moved(const Point& p, const Point& d, double h) {
  Point out{p.x, p.theta + h * d.theta};
  for (size_t i = 0; i < p.x.size(); ++i) out.x[i] = p.x[i] + h * d.x[i];
  return out;
}

Point difference(const Point& a, const Point& b, double h) {
  Point out{a.x, (a.theta - b.theta) / (2 * h)};
  for (size_t i = 0; i < a.x.size(); ++i) out.x[i] = (a.x[i] - b.x[i]) / (2 * h);
  return out;
}

Tensor selected(const OpWorld& world, const Tensors& parameters) {
  Tensors parts;
  for (const SelectedPart& part : world.selection.parts())
    parts.push_back(parameters[part.parameter].flatten().index_select(0, part.entries()));
  return parts.empty() ? at::zeros({0}, at::kDouble) : at::cat(parts);
}

Tensors place(const OpWorld& world, const Tensor& theta) {
  Tensors out = world.parameters;
  for (const SelectedPart& part : world.selection.parts()) {
    const Tensor& w = out[part.parameter];
    out[part.parameter] = w.flatten().index_copy(0, part.entries(), theta.narrow(0, part.begin, part.size)).view_as(w);
  }
  return out;
}

Tensors rows_of(const Tensors& all, int64_t s, int64_t length) {
  Tensors out;
  for (const Tensor& x : all) out.push_back(x.narrow(0, s * length, length));
  return out;
}

void expect_close(const Tensor& a, const Tensor& b, double tolerance, double scale, const std::string& what) {
  ASSERT_EQ(a.sizes(), b.sizes()) << what;
  EXPECT_LE((a - b).norm().item<double>(), tolerance * std::max(scale, 1e-30)) << what << ", |b| = " << b.norm();
}

double size_of(const Tensors& all) {
  double sum = 0;
  for (const Tensor& t : all)
    if (t.defined()) sum += t.square().sum().item<double>();
  return std::sqrt(sum);
}

void expect_close(const Tensors& a, const Tensors& b, double tolerance, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i) expect_close(a[i], b[i], tolerance, size_of(b), what + " " + std::to_string(i));
}

}  // namespace hesper::test
