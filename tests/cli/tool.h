#pragma once
// Runs the built tool as a user does, and small things to run it on.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "temporary_folder.h"
#include "text/npy.h"

namespace hesper {

struct Outcome {
  int code = -1;  // exit code; 128 + signal
  std::string out, err;
};

inline std::string quoted(const std::string& word) {
  std::string text = "'";
  for (const char c : word) {
    if (c == '\'') text += "'\\'";
    text += c;
  }
  text += '\'';
  return text;
}

// `before` hesper `words`, in `folder`, standard output and error to .out and .err (by `before`, where there is one).
// One thread: the models are tiny, and threads that wait for each other on a busy machine cost minutes.
inline Outcome run_tool(const std::filesystem::path& folder, const std::vector<std::string>& words,
                        const std::string& before = "") {
  std::string command =
      fmt::format("cd {} && OMP_NUM_THREADS=1 {} {}", quoted(folder.string()), before, quoted(HESPER_BINARY));
  for (const std::string& word : words) command += fmt::format(" {}", quoted(word));
  if (before.empty()) command += " >.out 2>.err";
  const int status = std::system(command.c_str());
  Outcome outcome;
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.out = read_bytes(folder / ".out");
  outcome.err = read_bytes(folder / ".err");
  return outcome;
}

using Words = std::vector<std::string>;

inline Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// hesper `words` in `folder`, not waited for; standard output and error to these files.
inline pid_t start_tool(const std::filesystem::path& folder, const Words& words, const std::string& out,
                        const std::string& err) {
  Words all = Words{HESPER_BINARY} + words;
  std::vector<char*> arguments;
  for (std::string& word : all) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addchdir_np(&files, folder.c_str());
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&files, STDERR_FILENO, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t process = 0;
  const int failed = posix_spawn(&process, arguments[0], &files, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (failed != 0) throw std::runtime_error("cannot start the tool");
  return process;
}

// Exit code `code`, exactly one line on standard error, "hesper: " and `part` in it.
inline void expect_refusal(const Outcome& outcome, int code, const std::string& part) {
  EXPECT_EQ(outcome.code, code) << outcome.out << outcome.err;
  EXPECT_TRUE(outcome.err.starts_with("hesper: ")) << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_TRUE(outcome.err.ends_with('\n')) << outcome.err;
  EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
}

// The events of --json, one object a line.
inline std::vector<nlohmann::json> events_of(const Outcome& outcome) {
  std::vector<nlohmann::json> events;
  std::istringstream lines(outcome.out);
  for (std::string line; std::getline(lines, line);) events.push_back(nlohmann::json::parse(line));
  return events;
}

inline nlohmann::json last_event(const Outcome& outcome, const std::string& name) {
  nlohmann::json found;
  for (const auto& event : events_of(outcome)) {
    if (event.at("event") == name) found = event;
  }
  return found;
}

inline std::string golden_folder(const std::string& name) {
  return fmt::format("{}/tests/golden/{}", HESPER_SOURCE_DIR, name);
}

// A copy of a golden model that a test may damage.
inline std::filesystem::path copy_model(const TemporaryFolder& folder, const std::string& name) {
  const std::filesystem::path target = folder / "model";
  std::filesystem::create_directory(target);
  for (const char* file : {"config.json", "model.safetensors"}) {
    std::filesystem::copy_file(golden_folder(name) + "/" + file, target / file);
    std::filesystem::permissions(target / file, std::filesystem::perms::owner_all);
  }
  return target;
}

// Real data beside the checkout, read where it lies.
inline std::string shared_file(const std::string& file) { return fmt::format("{}/data/{}", HESPER_SHARED_DIR, file); }

}  // namespace hesper
