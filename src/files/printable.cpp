#include "files/printable.h"

#include <nlohmann/json.hpp>

namespace hesper {

std::string printable(std::string_view name) {
  constexpr size_t longest = 160;
  const std::string text(name.substr(0, longest));
  std::string quoted = nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (name.size() > longest) quoted += "...";
  return quoted;
}

}  // namespace hesper
