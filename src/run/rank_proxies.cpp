#include "run/rank_proxies.h"

#include <limits>
#include <map>
#include <span>

#include "ops/linear.h"
#include "ops/product.h"
#include "ops/random.h"
#include "tangent/tangent_pass.h"

namespace hesper {
namespace {

template <class T>
Tensor signs(int parameter, int64_t window, at::IntArrayRef shape) {
  Tensor v = at::empty(shape, c10::CppTypeToScalarType<T>::value);
  fill_signs({.stream = static_cast<uint32_t>(parameter), .window = static_cast<uint32_t>(window)}, 0,
             std::span<T>(v.mutable_data_ptr<T>(), static_cast<size_t>(v.numel())));
  return v;
}

/// d_1 * v .. d_K * v
Directions signed_directions(const NamedDirections& named, int64_t window, at::ScalarType dtype, at::Device device) {
  std::vector<Move> moves;
  for (const Move& move : named.moves) {
    const auto shape = move.values.sizes();
    Tensor v = dtype == at::kDouble ? signs<double>(move.parameter, window, shape)
                                    : signs<float>(move.parameter, window, shape);
    moves.push_back({move.direction, move.parameter, v.mul_(move.values)});
  }
  return Directions::moves(moves, named.count(), dtype, device);
}

/// A linear layer of which a direction moves something.
struct MovedLayer {
  const Linear* op = nullptr;
  Tensor x, y_bar;  // (T, in), (T, out)
  Tensor dW, db;    // (out, in), (out); undefined: at rest

  /// sum_i g_i^2 d_i^2
  double fisher() const {
    double sum = 0;
    if (dW.defined()) sum += product(y_bar.t(), x).mul_(dW).square_().sum(at::kDouble).item<double>();
    if (db.defined()) sum += y_bar.sum(0, false, at::kDouble).mul(db).square().sum().item<double>();
    return sum;
  }
  double output_error() const {
    Tensor y = dW.defined() ? product(x, dW.t()) : at::zeros_like(y_bar);
    if (db.defined()) y.add_(db);
    return y.square_().sum(at::kDouble).item<double>() / static_cast<double>(y.size(0));
  }
};

/// Number of the linear layer's op that reads the parameter; -1 for what no linear layer reads.
int linear_of(const Program& program, int parameter) {
  for (size_t i = 0; i < program.ops().size(); ++i)
    for (int p : program.ops()[i]->parameters)
      if (p == parameter) return program.ops()[i]->name() == "linear" ? static_cast<int>(i) : -1;
  return -1;
}

}  // namespace

WindowProxies window_proxies(const Program& program, const Parameters& parameters, const Selection& selection,
                             const Tape& tape, int64_t place, int64_t window, const NamedDirections& named) {
  WindowProxies out;
  {
    const Directions v = signed_directions(named, window, parameters.working(), parameters.device());
    const TangentPass::Forms forms = TangentPass(program, parameters, selection, tape).second_order(v, place);
    out.gauss_newton = forms.gauss_newton.diagonal().cpu() / 2;
    out.diagonal = out.gauss_newton + forms.residual.diagonal().cpu() / 2;
  }
  out.fisher = at::zeros({named.count()}, at::kDouble), out.output_error = at::zeros_like(out.fisher);
  const int64_t begin = place * tape.tokens.length, length = tape.tokens.length;
  std::map<std::pair<int64_t, int>, MovedLayer> layers;  // by direction and op
  for (const Move& move : named.moves) {
    const int i = linear_of(program, move.parameter);
    const auto* op = i < 0 ? nullptr : static_cast<const Linear*>(program.ops()[i].get());
    if (!op || !selection.has(op->parameters[0])) {
      out.fisher[move.direction] = out.output_error[move.direction] = std::numeric_limits<double>::quiet_NaN();
      continue;
    }
    MovedLayer& layer = layers[{move.direction, i}];
    layer.x = op->input(tape.ops[i]).narrow(0, begin, length);
    layer.y_bar = op->output_adjoint(tape.ops[i]).narrow(0, begin, length);
    if (move.parameter == op->parameters[0])
      layer.dW = op->turned() ? move.values.t() : move.values;
    else
      layer.db = move.values;
  }
  for (auto& [where, layer] : layers) {
    for (Tensor* t : {&layer.x, &layer.y_bar, &layer.dW, &layer.db})  // the tape may lie on the host
      if (t->defined()) *t = t->to(parameters.device(), parameters.working());
    out.fisher[where.first] += layer.fisher();
    out.output_error[where.first] += layer.output_error();
    layer = {};
  }
  return out;
}

}  // namespace hesper
