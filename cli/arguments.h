#pragma once
#include <string>
#include <vector>

namespace hesper::cli {

/// argv without the program, '_' between the words of a flag's name turned into '-'.
std::vector<std::string> normal_arguments(int argc, const char* const* argv);

/// Throws std::invalid_argument where the first argument is none of the commands.
void refuse_unknown_command(const std::vector<std::string>& arguments, const std::vector<std::string>& commands);

}  // namespace hesper::cli
