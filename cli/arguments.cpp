#include "arguments.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string_view>

namespace hesper::cli {
namespace {

constexpr std::array later_flags = {"--revision", "--cache-dir", "--offline"};

template <size_t n>
bool holds(const std::array<const char*, n>& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

}  // namespace

std::vector<std::string> normal_arguments(int argc, const char* const* argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  for (std::string& argument : arguments) {
    if (argument == "--") break;
    if (!argument.starts_with("--")) continue;
    const auto end = argument.begin() + static_cast<std::ptrdiff_t>(std::min(argument.find('='), argument.size()));
    std::replace(argument.begin(), end, '_', '-');
  }
  return arguments;
}

void refuse_unbuilt(const std::vector<std::string>& arguments, const std::vector<std::string>& commands) {
  if (!arguments.empty() && !arguments[0].starts_with("-")) {
    if (std::find(commands.begin(), commands.end(), arguments[0]) == commands.end()) {
      throw std::invalid_argument(
          fmt::format("{}: no such command; there are {}", arguments[0], fmt::join(commands, ", ")));
    }
  }
  for (const std::string& argument : arguments) {
    if (argument == "--") break;
    const std::string name = argument.substr(0, argument.find('='));
    if (holds(later_flags, name)) throw std::invalid_argument(fmt::format("{}: not built yet", name));
  }
}

}  // namespace hesper::cli
