// hesper merge: the parts' sums as a snapshot of the whole run with every step done, and then that run's own command,
// which has only its results left to make.
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <stdexcept>

#include "arguments.h"
#include "commands.h"
#include "flags.h"
#include "run/merge.h"

namespace hesper::cli {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

struct MergeFlags {
  std::vector<std::string> parts;
  std::string out;
  bool overwrite = false, quiet = false, json = false;
};

constexpr std::pair<const char*, Action (*)(CLI::App&)> kRuns[] = {{"exact", add_exact},
                                                                   {"diag", add_diag},
                                                                   {"fisher", add_fisher},
                                                                   {"sweep", add_sweep},
                                                                   {"quadratic", add_quadratic}};

/// The command of a part without what concerns the part and where its output went.
Words whole_command(const Words& command_line) {
  Words out;
  for (size_t i = 0; i < command_line.size(); ++i) {
    const std::string name = command_line[i].substr(0, command_line[i].find('='));
    if (name == "--resume" || name == "--overwrite" || name == "--quiet" || name == "--json") continue;
    if (name == "--parts" || name == "--out" || name == "--snapshot-every") {
      if (name == command_line[i]) ++i;  // its value
      continue;
    }
    out.push_back(command_line[i]);
  }
  return out;
}

Words normal(const Words& command_line) {
  std::vector<const char*> words;
  for (const std::string& word : command_line) words.push_back(word.c_str());
  return normal_arguments(static_cast<int>(words.size()), words.data());
}

struct Origin {
  std::string snapshot, folder;
  Words command_line;  // with the program's name
};

Origin read_origin(const nlohmann::json& said, const std::string& part) {
  try {
    Origin origin{said.at("snapshot"), said.at("folder"), said.at("command_line")};
    if (origin.command_line.size() > 1) return origin;
  } catch (const nlohmann::json::exception&) {
  }
  throw std::runtime_error(fmt::format("{}: does not say which command it is a part of", part));
}

void run_merge(const MergeFlags& flags, const Words& command_line) {
  std::vector<fs::path> files;
  for (const std::string& part : flags.parts) files.push_back(fs::absolute(part));
  const fs::path folder = fs::absolute(flags.out);
  const SavedState whole = merge_parts(files);
  const Origin origin = read_origin(whole.origin, flags.parts[0]);
  const fs::path snapshot = folder / origin.snapshot;
  if (const fs::path inside = snapshot.lexically_normal().lexically_relative(folder.lexically_normal());
      inside.empty() || *inside.begin() == "..")
    throw std::runtime_error(fmt::format("{}: its result would lie outside of {}", flags.parts[0], flags.out));
  Words words = whole_command(normal(origin.command_line));
  words.insert(words.end(), {"--out", folder.string()});
  if (flags.overwrite) fs::remove(snapshot);
  if (fs::exists(snapshot))
    throw std::invalid_argument(
        fmt::format("{}: an unfinished run is there; --overwrite begins anew", snapshot.string()));
  if (flags.quiet) words.emplace_back("--quiet");
  if (flags.json) words.emplace_back("--json");

  CLI::App app("hesper", "hesper");
  Action action;
  for (const auto& [name, add] : kRuns)
    if (name == words[0]) action = add(*app.add_subcommand(name));
  if (!action) throw std::runtime_error(fmt::format("{}: a part of {}, which has none", flags.parts[0], words[0]));
  // Paths of the command mean what they meant where it ran.
  std::error_code error;
  fs::current_path(origin.folder, error);
  try {
    app.parse(Words(words.rbegin(), words.rend()));
  } catch (const CLI::ParseError& failed) {
    throw std::runtime_error(fmt::format("{}: its command is not understood: {}", flags.parts[0], failed.what()));
  }
  write_state(snapshot, {whole.configuration, {}, whole.state, whole.before});
  action(command_line);
}

}  // namespace

Action add_merge(CLI::App& app) {
  auto flags = std::make_shared<MergeFlags>();
  app.add_option("parts", flags->parts, "files NAME.iofN.part of one run, all of its parts")->required();
  app.add_option("--out", flags->out, "folder of the results")->required();
  app.add_flag("--overwrite", flags->overwrite, "also over an unfinished run there");
  app.add_flag("--quiet", flags->quiet, "results and errors only");
  app.add_flag("--json", flags->json, "events on standard output, one JSON object a line");
  return [flags](const std::vector<std::string>& command_line) { run_merge(*flags, command_line); };
}

}  // namespace hesper::cli
