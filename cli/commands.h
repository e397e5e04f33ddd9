#pragma once
// One function a command: adds its flags to `app` and returns what to run once they are parsed.
#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace hesper::cli {

/// Returns nothing; throws what main.cpp turns into exit codes.
using Action = std::function<void(const std::vector<std::string>& command_line)>;

Action add_exact(CLI::App& app);
Action add_diag(CLI::App& app);
Action add_fisher(CLI::App& app);
Action add_tokenize(CLI::App& app);
Action add_perplexity(CLI::App& app);
Action add_check(CLI::App& app);
Action add_plan(CLI::App& app);
Action add_quadratic(CLI::App& app);
Action add_sweep(CLI::App& app);
Action add_plot(CLI::App& app);
Action add_compare(CLI::App& app);
Action add_info(CLI::App& app);
Action add_launch(CLI::App& app);
Action add_merge(CLI::App& app);

}  // namespace hesper::cli
