#include "process.h"

#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <stdexcept>

namespace hesper::bench {
namespace {

int64_t anonymous_memory_of(pid_t pid) {
  std::ifstream in(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("RssAnon:")) return std::stoll(line.substr(8)) * 1024;
  return 0;
}

pid_t start(const std::vector<std::string>& argv, int output) {
  std::vector<char*> arguments;
  for (const std::string& a : argv) arguments.push_back(const_cast<char*>(a.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  pid_t pid = 0;
  const int failed = posix_spawn(&pid, argv[0].c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) throw std::runtime_error(fmt::format("cannot start {}", argv[0]));
  return pid;
}

}  // namespace

Finished run_process(const std::vector<std::string>& argv) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) throw std::runtime_error("cannot make a pipe");
  pid_t pid = 0;
  try {
    pid = start(argv, ends[1]);
  } catch (...) {
    close(ends[0]), close(ends[1]);
    throw;
  }
  close(ends[1]);
  Finished out;
  std::array<char, 4096> bytes{};
  for (ssize_t n = 1; n > 0;) {  // until the end of its output
    pollfd ready{ends[0], POLLIN, 0};
    out.peak_bytes = std::max(out.peak_bytes, anonymous_memory_of(pid));
    if (poll(&ready, 1, 5) <= 0) continue;
    n = read(ends[0], bytes.data(), bytes.size());
    if (n > 0) out.output.append(bytes.data(), static_cast<size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw std::runtime_error(fmt::format("{} ended with {}", argv[0],
                                         WIFEXITED(status) ? fmt::format("exit code {}", WEXITSTATUS(status))
                                                           : fmt::format("signal {}", WTERMSIG(status))));
  return out;
}

}  // namespace hesper::bench
