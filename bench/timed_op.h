#pragma once
// An op that adds up the seconds its tangent maps take on a device, by name.
#include <c10/core/impl/VirtualGuardImpl.h>

#include <chrono>
#include <map>
#include <memory>
#include <type_traits>

#include "model/program.h"

namespace hesper {

using Seconds = std::map<std::string, double>;

inline void synchronize(at::Device device) {
  if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}
inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class TimedOp : public Op {
 public:
  TimedOp(std::unique_ptr<Op> op, at::Device device, Seconds& seconds)
      : Op(op->inputs, op->parameters), op_(std::move(op)), device_(device), seconds_(seconds) {
    output = op_->output;
    Op::device = op_->device;
  }
  /// Every op of the program in its timed form; the program's results stay the same.
  static void wrap(Program& program, at::Device device, Seconds& seconds) {
    for (auto& op : const_cast<std::vector<std::unique_ptr<Op>>&>(program.ops()))
      op = std::make_unique<TimedOp>(std::move(op), device, seconds);
  }

  Tensor forward(const Primal& p, const Tensors& x, Kept& kept) const override { return op_->forward(p, x, kept); }
  Tensors adjoint(const Primal& p, const Tensor& y, unsigned w, Kept& kept, Readout& r) const override {
    return op_->adjoint(p, y, w, kept, r);
  }
  Tensor forward_tangent(const Tangent& t, const Tensors& x, Kept& kept) const override {
    return timed("", [&] { return op_->forward_tangent(t, x, kept); });
  }
  Tensors adjoint_tangent(const Tangent& t, const Tensor& y, const Kept& kept, Readout& out) const override {
    return timed("", [&] { return op_->adjoint_tangent(t, y, kept, out); });
  }
  void second_order(const Tangent& t, const Kept& kept, SecondOrder& form) const override {
    timed(" form", [&] { return op_->second_order(t, kept, form), 0; });
  }
  OpCost cost(const OpShapes& s) const override { return op_->cost(s); }
  int64_t device_scratch_bytes(int64_t t, int64_t k, int64_t e, bool fused) const override {
    return op_->device_scratch_bytes(t, k, e, fused);
  }
  bool token_local() const override { return op_->token_local(); }
  bool multiplies() const override { return op_->multiplies(); }
  std::string name() const override { return op_->name(); }

 private:
  template <class F>
  std::invoke_result_t<F> timed(const char* what, F f) const {
    synchronize(device_);
    const double begin = seconds_now();
    auto result = f();
    synchronize(device_);
    seconds_[name() + what] += seconds_now() - begin;
    return result;
  }
  std::unique_ptr<Op> op_;
  at::Device device_;
  Seconds& seconds_;
};

}  // namespace hesper
