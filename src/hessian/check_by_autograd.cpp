#include <fmt/format.h>

#include <cmath>

#include "hessian/autograd_engine.h"
#include "hessian/checker.h"

namespace hesper {
namespace {

/// What autograd keeps for the double backward: numbers per token and width of each block that is at or above the
/// selection, of its attention's T x T matrices and of the head's T x V. The factors are fitted to peaks measured on
/// opt-tiny and stories260K (64 to 512 tokens), of which they give 0.8 to 1.5 times.
int64_t graph_bytes(const ModelConfig& c, const Program& program, const Selection& selection, const Tokens& tokens,
                    at::ScalarType dtype) {
  const std::vector<char> active = active_values(program, selection);
  int64_t attentions = 0;
  for (const auto& op : program.ops()) attentions += !op->token_local() && active[op->output];
  const double rows = static_cast<double>(tokens.rows()), t = static_cast<double>(tokens.length);
  const double block = rows * (30.0 * static_cast<double>(c.width) + 12.0 * static_cast<double>(c.hidden) +
                               9.0 * static_cast<double>(c.heads) * t);
  const double numbers = static_cast<double>(attentions + 1) * block + 6.0 * rows * static_cast<double>(c.vocab);
  return static_cast<int64_t>(numbers * static_cast<double>(c10::elementSize(dtype)));
}

}  // namespace

void Checker::by_autograd() {
  const auto needed = [&](at::ScalarType dtype) {
    return graph_bytes(model_.config(), program_, selection_, tokens_, dtype);
  };
  const auto fits = [&](at::ScalarType dtype) {
    return options_.memory_limit <= 0 || needed(dtype) <= options_.memory_limit;
  };
  const auto gib = [](int64_t bytes) { return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1 << 30)); };
  const int64_t b = tokens_.sequences;
  const auto run = [&](at::ScalarType dtype) {
    const AutogradEngine engine(program_, wide_, selection_, tokens_, dtype);
    Products out;
    out.loss = engine.losses().mean().item<double>();
    out.gradient = engine.gradient().to(at::kDouble) / b;
    Tensors rows;
    for (int64_t k = 0; k < v_.size(0); ++k) rows.push_back(engine.product(v_[k]).to(at::kDouble) / b);
    out.hv = at::stack(rows);
    return out;
  };
  if (fits(at::kDouble)) {
    const Products oracle = run(at::kDouble);
    const double g = l2(oracle.gradient);
    row("loss", "autograd fp64", std::abs(exact_.loss - oracle.loss) / std::abs(oracle.loss),
        kHeadroom * differences_.loss_noise() / std::abs(oracle.loss),
        fmt::format("{:g} x noise of the loss, measured", kHeadroom));
    row("gradient", "autograd fp64", relative(exact_.gradient, oracle.gradient),
        kHeadroom * differences_.gradient_noise() / std::max(g, 1e-300),
        fmt::format("{:g} x noise of the gradient, measured", kHeadroom));
    row("H V, two-pass fp64", "autograd fp64", relative(exact_.hv, oracle.hv), kHeadroom * noise_, noise_reason_);
  }
  if (!fits(at::kFloat)) {
    report_.notes.push_back(fmt::format(
        "Autograd was left out: its graph needs about {} in fp32, the limit is {}. Shorter windows (--seqlen) bring it "
        "back.",
        gib(needed(at::kFloat)), gib(options_.memory_limit)));
    return;
  }
  const Products single = run(at::kFloat);
  plain_error_ = relative(single.hv, exact_.hv);
  if (fits(at::kDouble)) {
    shown("H V, autograd fp32", "two-pass fp64", *plain_error_, 0, "what plain fp32 loses, for comparison");
    return;
  }
  // A ReLU mask that flips in fp32 moves H V by a jump, which no noise measured in fp64 foretells.
  const double bound = relu_ ? 1e-2 : kHeadroom * noise_ * kEps32 / kEps64;
  row("gradient, fp64", "autograd fp32", relative(exact_.gradient, single.gradient), 1e-3,
      "fp32 log-softmax over the vocabulary");
  row("H V, two-pass fp64", "autograd fp32", *plain_error_, std::max(bound, 1e-3),
      relu_ ? "autograd in fp32: flipped ReLU masks" : "autograd in fp32: its rounding and log-softmax");
  report_.notes.push_back(fmt::format(
      "Autograd ran in fp32: its graph needs about {} in fp64, the limit is {}. Shorter windows (--seqlen) bring the "
      "sharper comparison back.",
      gib(needed(at::kDouble)), gib(options_.memory_limit)));
}

}  // namespace hesper
