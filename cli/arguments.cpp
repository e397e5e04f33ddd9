#include "arguments.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <stdexcept>

namespace hesper::cli {
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

void refuse_unknown_command(const std::vector<std::string>& arguments, const std::vector<std::string>& commands) {
  if (arguments.empty() || arguments[0].starts_with("-")) return;
  if (std::find(commands.begin(), commands.end(), arguments[0]) == commands.end())
    throw std::invalid_argument(
        fmt::format("{}: no such command; there are {}", arguments[0], fmt::join(commands, ", ")));
}

}  // namespace hesper::cli
