#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <utility>

namespace hesper::cli {

/// Wrong usage, in one line: exit code 2.
template <typename... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw std::invalid_argument(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace hesper::cli
