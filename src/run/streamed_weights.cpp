#include "run/streamed_weights.h"

#include <algorithm>

#include "run/forecast.h"

namespace hesper {

std::vector<int> weight_order(const Program& program) {
  std::vector<int> out;
  for (const auto& op : program.ops())
    for (int p : op->parameters)
      if (p >= 0 && !op->inputs.empty()) out.push_back(p);  // an embedding takes rows from the file
  out.push_back(program.cross_entropy().table);
  return out;
}

int64_t bytes_in_flight(const Program& program, const std::vector<std::vector<int64_t>>& shapes,
                        const std::vector<at::ScalarType>& stored) {
  const auto bytes = [&](int p) {
    return p < 0 ? 0 : c10::multiply_integers(shapes[p]) * static_cast<int64_t>(c10::elementSize(stored[p]));
  };
  int64_t most = bytes(program.cross_entropy().table);
  for (const Segment& s : program.segments()) {
    int64_t mine = 0;
    for (int i = s.begin; i < s.end; ++i)
      if (!program.ops()[i]->inputs.empty())
        for (int p : program.ops()[i]->parameters) mine += bytes(p);
    most = std::max(most, mine);
  }
  return 2 * most;
}

Parameters make_parameters(const Model& model, const Program& program, at::Device device, const RunForm& form) {
  const Tensors& values = model.weights.values;
  if (!form.streamed) return Parameters(values, form.precision, device, program.parameter_devices(), form.products);
  std::vector<std::vector<int64_t>> shapes;
  std::vector<at::ScalarType> stored;
  for (const at::Tensor& value : values) shapes.push_back(value.sizes().vec()), stored.push_back(value.scalar_type());
  return Parameters::streamed(values, form.precision, device, form.products, weight_order(program),
                              bytes_in_flight(program, shapes, stored));
}

}  // namespace hesper
