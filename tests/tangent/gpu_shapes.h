// Toy models that the kernels serve: widths and heads of their sizes.
#pragma once

#include "tangent/toy_models.h"

namespace hesper::test {

inline constexpr ToyShape opt{
    .vocab = 52, .width = 64, .heads = 4, .kv_heads = 4, .hidden = 96, .windows = 1, .tokens = 19};
inline constexpr ToyShape llama{.llama = true,
                                .vocab = 52,
                                .width = 64,
                                .heads = 4,
                                .kv_heads = 2,
                                .hidden = 96,
                                .windows = 1,
                                .tokens = 19,
                                .phi = Phi::silu,
                                .tied = false};

}  // namespace hesper::test
