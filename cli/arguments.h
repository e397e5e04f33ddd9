#pragma once
#include <string>
#include <vector>

namespace hesper::cli {

/// argv without the program, '_' between the words of a flag's name turned into '-'.
std::vector<std::string> normal_arguments(int argc, const char* const* argv);

/// Throws std::invalid_argument for a command or flag that is planned but not there yet, or an unknown command.
void refuse_unbuilt(const std::vector<std::string>& arguments, const std::vector<std::string>& commands);

}  // namespace hesper::cli
