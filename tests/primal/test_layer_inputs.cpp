// What linear layers read, by the forward pass alone, beside what the whole primal pass keeps.
#include <gtest/gtest.h>

#include "primal/primal.h"
#include "tangent/toy_models.h"

namespace hesper::test {
namespace {

TEST(LayerInputs, AreThoseOfTheTape) {
  const Toy toy = make_toy({});
  const Selection selection =
      toy.select({{"0.q.weight", {0}}, {"0.k.weight", {3}}, {"1.down.weight", {1}}, {"0.up.weight", {2}}});
  const LayerInputs got = run_layer_inputs(*toy.program, toy.parameters(), selection, toy.tokens, at::kDouble);
  const Tape tape = run_primal(*toy.program, toy.parameters(), selection, toy.tokens, at::kDouble);
  EXPECT_TRUE(at::equal(got.losses, tape.losses));
  ASSERT_EQ(got.inputs.size(), 4u);
  for (size_t i = 0; i < 4; ++i)
    for (size_t op = 0; op < tape.ops.size(); ++op)
      if (toy.program->ops()[op]->name() == "linear" &&
          toy.program->ops()[op]->parameters[0] == selection.parts()[i].parameter) {
        EXPECT_TRUE(at::equal(got.inputs[i], tape.ops[op][0])) << i;
      }
  EXPECT_TRUE(got.inputs[0].is_same(got.inputs[1]));
  EXPECT_EQ(got.inputs[2].size(1), 24);
}

TEST(LayerInputs, RefuseWhatIsNoLinearLayer) {
  const Toy toy = make_toy({});
  for (const char* name : {"0.q.bias", "0.n1.weight", "embed"})
    EXPECT_THROW(run_layer_inputs(*toy.program, toy.parameters(), toy.select({{name, {0}}}), toy.tokens, at::kDouble),
                 std::invalid_argument);
}

}  // namespace
}  // namespace hesper::test
