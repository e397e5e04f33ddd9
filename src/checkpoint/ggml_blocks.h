#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "files/gguf.h"

namespace hesper {

// Quantised blocks -> values, for the types Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K (ggml_blocks.cpp has each
// one's layout and formula). `stored` holds values.size() / type.elements blocks. Every product in the formulas is
// exact in float32 and at most one sum rounds, so that the values are those of any other correct reader, bit by bit.
void dequantise(const GgmlType& type, std::span<const std::byte> stored, std::span<float> values);

}  // namespace hesper
