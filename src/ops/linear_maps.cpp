#include "ops/linear_maps.h"

#include "ops/directions.h"
#include "ops/parameters.h"
#include "ops/readout.h"

namespace hesper {

Tensor LinearMaps::matrix(const Parameters& parameters, at::ScalarType dtype) const {
  const Tensor w = parameters.get(weight, dtype);
  return turned ? w.t() : w;
}

Tensor LinearMaps::factor(const Parameters& parameters) const {
  const Tensor w = parameters.factor(weight);
  return turned ? w.t() : w;
}

void LinearMaps::outer(Readout& out, const Tensor& y_bar, const Tensor& x, int64_t first) const {
  turned ? out.outer(weight, x, y_bar, first) : out.outer(weight, y_bar, x, first);
}

void LinearMaps::add_step(const Tangent& t, const Tensor& x, Tensor& y_dot) const {
  if (!t.directions.touches(weight)) return;
  const int64_t out = t.parameters.stored(weight).size(turned ? 1 : 0);
  const Products products = t.parameters.products();
  turned ? t.directions.add_linear_transposed(weight, x, y_dot, t.alive, out, products)
         : t.directions.add_linear(weight, x, y_dot, t.alive, out, products);
}

void LinearMaps::add_step_transposed(const Tangent& t, const Tensor& y_bar, Tensor& x_bar_dot) const {
  if (!t.directions.touches(weight)) return;
  const int64_t in = t.parameters.stored(weight).size(turned ? 0 : 1);
  const Products products = t.parameters.products();
  turned ? t.directions.add_linear(weight, y_bar, x_bar_dot, t.alive, in, products)
         : t.directions.add_linear_transposed(weight, y_bar, x_bar_dot, t.alive, in, products);
}

}  // namespace hesper
