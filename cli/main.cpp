// Flags -> plain structs -> one library call; the only place that turns errors into exit codes.
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <malloc.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>
#include <stdexcept>

#include "arguments.h"
#include "commands.h"
#include "processes.h"
#include "run/exact.h"
#include "run/tensor_memory.h"
#include "values.h"

namespace hesper::cli {
namespace {

enum Exit { done = 0, failed = 1, wrong_usage = 2, stopped = 130 };

struct Command {
  const char* name;
  const char* description;
  Action (*add)(CLI::App&);
};

constexpr Command commands[] = {
    {"exact", "dense Hessian of the selected weights -> .pt .pdf .png .json", add_exact},
    {"diag", "Hessian diagonals of whole layers, with error bars -> .pt .pdf .png .csv .json", add_diag},
    {"fisher", "squared-gradient (Fisher) diagonals, five kinds -> .pt .pdf .png .csv .json", add_fisher},
    {"quadratic", "what a change of the weights costs, to second order, along your own directions", add_quadratic},
    {"sweep", "errors over growing b or growing probes, from one run -> .csv .pdf .png .json", add_sweep},
    {"launch", "many processes on this host, where torchrun is not installed", add_launch},
    {"check", "hand-written derivatives against autograd and finite differences", add_check},
    {"perplexity", "loss and perplexity of the windows, with standard errors", add_perplexity},
    {"tokenize", "ids of a text", add_tokenize},
    {"plan", "memory and time forecast of a run, nothing computed", add_plan},
    {"plot", "heat map of a saved result", add_plot},
    {"merge", "parts of a run (--parts i/N) into the result of the whole", add_merge},
    {"compare", "distance of two results", add_compare},
    {"info", "build, devices, caches", add_info},
};

int say(Exit code, const std::string& message) {
  // What is wrong with the command is wrong for all ranks.
  const int rank = process_rank();
  if (rank == 0) fmt::print(stderr, "hesper: {}\n", one_line(message));
  if (rank > 0 && code == failed) fmt::print(stderr, "hesper: rank {}: {}\n", rank, one_line(message));
  return code;
}

int run(int argc, const char* const* argv) {
  CLI::App app("hesper: exact Hessians of the perplexity of language models", "hesper");
  app.set_version_flag("--version", "hesper " HESPER_VERSION);
  app.require_subcommand(1);
  std::vector<std::pair<CLI::App*, Action>> actions;
  std::vector<std::string> names;
  for (const Command& command : commands) {
    CLI::App* sub = app.add_subcommand(command.name, command.description);
    names.emplace_back(command.name);
    actions.emplace_back(sub, command.add(*sub));
  }

  std::vector<std::string> arguments = normal_arguments(argc, argv);
  refuse_unknown_command(arguments, names);
  if (arguments.empty()) {
    fmt::print(stderr, "hesper: no command; there are {}; see hesper --help\n", fmt::join(names, ", "));
    return wrong_usage;
  }
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ExtrasError&) {
    const std::vector<std::string> extras = app.remaining(true);
    const auto flag =
        std::find_if(extras.begin(), extras.end(), [](const auto& word) { return word.starts_with("-"); });
    const std::string& word = flag != extras.end() ? *flag : extras.at(0);
    return say(wrong_usage, fmt::format("{}: not expected here; see hesper {} --help", word, arguments[0]));
  } catch (const CLI::ParseError& error) {
    return say(wrong_usage, error.what());
  }
  const std::vector<std::string> command_line(argv, argv + argc);
  for (const auto& [sub, action] : actions) {
    if (sub->parsed()) action(command_line);
  }
  return done;
}

int guarded(int argc, const char* const* argv) {
  try {
    return run(argc, argv);
  } catch (const Interrupted& error) {
    return say(stopped, error.what());
  } catch (const std::invalid_argument& error) {
    return say(wrong_usage, error.what());
  } catch (const std::bad_alloc&) {
    return say(failed, "out of memory; --memory-limit or a smaller run may help");
  } catch (const c10::OutOfMemoryError& error) {
    return say(failed, std::string("out of GPU memory; --memory-limit or --directions may help: ") +
                           error.what_without_backtrace());
  } catch (const c10::Error& error) {
    return say(failed, error.what_without_backtrace());
  } catch (const std::exception& error) {
    return say(failed, error.what());
  }
}

}  // namespace
}  // namespace hesper::cli

int main(int argc, char** argv) {
  // What is small, or not a tensor: freed places stay with the process and are handed out again, instead of being
  // mapped and zeroed anew each time. One heap for all threads: a second one would keep holes of its own.
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  hesper::keep_tensors_in_blocks();
  // On a GPU: segments that grow leave fewer holes. Read when LibTorch first takes memory there; what the user says
  // goes.
  setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True", 0);
  return hesper::cli::guarded(argc, argv);
}
