// Tokens that carry no loss skip the head: the same results as autograd over all rows, and fewer rows multiplied.
#include <ATen/record_function.h>
#include <gtest/gtest.h>

#include <atomic>

#include "hessian/autograd_engine.h"
#include "tangent/tangent_pass.h"
#include "tangent/toy_models.h"

namespace hesper::test {
namespace {

constexpr int64_t kVocab = 31;  // no other width of the toy is 31: a product with it is the head's

double error(const Tensor& a, const Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

/// Rows that go into x U^T or come out of z_bar U, while it lives.
class HeadRows {
 public:
  HeadRows() {
    rows_ = 0;
    handle_ =
        at::addGlobalCallback(at::RecordFunctionCallback(&count).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  }
  ~HeadRows() { at::removeCallback(handle_); }
  int64_t counted() const { return rows_; }

 private:
  static std::unique_ptr<at::ObserverContext> count(const at::RecordFunction& call) {
    const std::string name = call.name();
    const auto inputs = call.inputs();
    const size_t first = name == "aten::addmm_" ? 1 : 0;
    if (name != "aten::mm" && name != "aten::addmm_" && name != "hesper::product" && name != "hesper::add_product")
      return nullptr;
    const at::IntArrayRef a = inputs[first].toTensor().sizes(), b = inputs[first + 1].toTensor().sizes();
    if (b[0] == kVocab || b[1] == kVocab) rows_ += a[0];
    return nullptr;
  }
  static inline std::atomic<int64_t> rows_ = 0;
  at::CallbackHandle handle_;
};

struct Work {
  int64_t primal, product, gram;
};

Work expect_everything(const Toy& toy, const Tokens& tokens, const Selection& selection) {
  const Parameters parameters = toy.parameters();
  const int64_t n = selection.size();
  const Directions units = Directions::units(selection, 0, n, at::kDouble);
  Work work{};
  Tape tape;
  {
    const HeadRows rows;
    tape = run_primal(*toy.program, parameters, selection, tokens, at::kDouble);
    work.primal = rows.counted();
  }
  for (int64_t s = 0; s < tokens.sequences; ++s) {
    const AutogradEngine engine(*toy.program, parameters, selection, tokens.cut(s, 0, tokens.length), at::kDouble);
    const Tensor h = engine.columns(0, n);
    EXPECT_NEAR(engine.losses()[0].item<double>(), tape.losses[s].item<double>(), 1e-12);
    EXPECT_LT(error(tape.gradient[s], engine.gradient()), 1e-12);
    for (const int64_t cut : {1, 3, 100}) {
      const TangentPass pass(*toy.program, parameters, selection, tape, cut * n);
      Tensor product;
      TangentPass::Forms forms;
      {
        const HeadRows rows;
        product = pass.product(units, s, Curvature::hessian);
        if (s == 0) work.product = rows.counted();
      }
      {
        const HeadRows rows;
        forms = pass.second_order(units, s);
        if (s == 0) work.gram = rows.counted();
      }
      EXPECT_LT(error(product, h), 1e-12) << cut;
      EXPECT_LT(error(forms.gauss_newton + forms.residual, h), 1e-12) << cut;
    }
  }
  return work;
}

TEST(CountedTokens, LossFromAPositionOn) {
  const Toy toy = make_toy({.vocab = kVocab, .tokens = 9});
  const Selection selection = toy.select({{"0.q.weight", {0, 1, 2, 17}}, {"1.up.weight", {3, 40}}});
  const Tensor ids = toy.tokens.ids.view({2, 9});
  Tensor labels = ids.clone();
  const Work all = expect_everything(toy, make_tokens(ids, labels, at::kCPU), selection);
  labels.narrow(1, 0, 7).fill_(-100);  // --loss-from 7: 2 of 8 predictions of a window are left
  const Work few = expect_everything(toy, make_tokens(ids, labels, at::kCPU), selection);
  EXPECT_EQ(few.primal, all.primal * 2 / 8);
  EXPECT_EQ(few.product, all.product * 2 / 8);
  EXPECT_EQ(few.gram, all.gram * 2 / 8);
  // Of each of 2 windows 8 predictions, forward and back; of a window's product p, z_dot of 6 directions and back.
  EXPECT_EQ(all.primal, 2 * 8 * 2);
  EXPECT_EQ(all.product, 8 * (1 + 6 + 6));
  EXPECT_EQ(all.gram, 8 * (1 + 6));
}

TEST(CountedTokens, LabelsWithHolesAndASelectedHead) {
  const Toy toy = make_toy({.vocab = kVocab, .tokens = 9, .tied = false});
  const Tensor ids = toy.tokens.ids.view({2, 9});
  Tensor labels = ids.clone();
  for (const int64_t position : {1, 2, 5, 8}) labels[0][position] = -100;
  labels.narrow(0, 1, 1).narrow(1, 0, 8).fill_(-100);
  expect_everything(toy, make_tokens(ids, labels, at::kCPU), toy.select_everywhere(2));
}

}  // namespace
}  // namespace hesper::test
