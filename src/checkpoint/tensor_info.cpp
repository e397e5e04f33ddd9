#include "checkpoint/tensor_info.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace hesper {

std::string format_shape(std::span<const int64_t> shape) { return fmt::format("({})", fmt::join(shape, ", ")); }

}  // namespace hesper
