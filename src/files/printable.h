#pragma once

#include <string>
#include <string_view>

namespace hesper {

// A name from a file, safe to print: quoted, escaped to ASCII, shortened when very long.
std::string printable(std::string_view name);

}  // namespace hesper
