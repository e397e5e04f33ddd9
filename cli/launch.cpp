// hesper launch -n N COMMAND ...: N processes of this program on this host with torchrun's environment. Their output
// comes through, that of all ranks but 0 with its number before each line; signals go on to all of them; when one fails
// the rest are ended.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>

#include "commands.h"

namespace hesper::cli {
namespace {

using Words = std::vector<std::string>;

struct LaunchFlags {
  int count = 0;
};

volatile std::sig_atomic_t signalled = 0;
void remember(int signal) { signalled = signal; }

/// A port of 127.0.0.1 that is free now.
int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  const bool bound = socket >= 0 && ::bind(socket, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  if (socket >= 0) ::close(socket);
  if (!bound) throw std::runtime_error(fmt::format("no free port: {}", std::strerror(errno)));
  return ntohs(address.sin_port);
}

/// One process, and what of its last lines has no end yet.
struct Child {
  pid_t process = 0;
  std::array<int, 2> pipes = {-1, -1};  // its standard output and error
  std::array<std::string, 2> open = {};
  int status = 0;
  bool ended = false;
};

Child start(int rank, int count, int port, const Words& command) {
  int out[2], err[2];
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0)
    throw std::runtime_error(fmt::format("no pipe: {}", std::strerror(errno)));
  Child child;
  child.process = ::fork();
  if (child.process < 0) throw std::runtime_error(fmt::format("no process: {}", std::strerror(errno)));
  if (child.process == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::setpgid(0, 0);  // a signal of the terminal reaches it through its parent alone, once
    ::dup2(out[1], STDOUT_FILENO);
    ::dup2(err[1], STDERR_FILENO);
    ::setenv("RANK", std::to_string(rank).c_str(), 1);
    ::setenv("LOCAL_RANK", std::to_string(rank).c_str(), 1);
    ::setenv("WORLD_SIZE", std::to_string(count).c_str(), 1);
    ::setenv("MASTER_ADDR", "127.0.0.1", 1);
    ::setenv("MASTER_PORT", std::to_string(port).c_str(), 1);
    const unsigned cores = std::max(1u, std::thread::hardware_concurrency() / static_cast<unsigned>(count));
    ::setenv("OMP_NUM_THREADS", std::to_string(cores).c_str(), 0);
    std::vector<char*> words;
    std::string self = "hesper";
    words.push_back(self.data());
    Words own = command;
    for (std::string& word : own) words.push_back(word.data());
    words.push_back(nullptr);
    ::execv("/proc/self/exe", words.data());
    ::_exit(127);
  }
  ::close(out[1]);
  ::close(err[1]);
  child.pipes = {out[0], err[0]};
  return child;
}

void put(int stream, const std::string& text) {
  std::FILE* const file = stream == 0 ? stdout : stderr;
  std::fwrite(text.data(), 1, text.size(), file);
  std::fflush(file);
}

/// What a stream of a rank has to say now; closes it at its end.
void pass_on(Child& child, int stream, int rank) {
  char buffer[1 << 14];
  int& pipe = child.pipes[static_cast<size_t>(stream)];
  const ssize_t size = ::read(pipe, buffer, sizeof buffer);
  std::string& open = child.open[static_cast<size_t>(stream)];
  if (size < 0 && errno == EINTR) return;
  if (size > 0) open.append(buffer, static_cast<size_t>(size));
  if (size <= 0) {
    ::close(pipe);
    pipe = -1;
    if (!open.empty() && rank > 0) open += '\n';
  }
  if (rank == 0) return put(stream, std::exchange(open, {}));  // as it is: a progress line has no end
  for (size_t end; (end = open.find('\n')) != std::string::npos; open.erase(0, end + 1))
    put(stream, fmt::format("[{}] {}", rank, open.substr(0, end + 1)));
}

std::string say_status(int status) {
  return WIFSIGNALED(status)
             ? fmt::format("was ended by signal {} ({})", WTERMSIG(status), ::strsignal(WTERMSIG(status)))
             : fmt::format("ended with exit code {}", WEXITSTATUS(status));
}

void run_launch(const LaunchFlags& flags, const Words& command) {
  if (command.empty())
    throw std::invalid_argument("launch: a command is missing, such as launch -n 4 diag --model DIR ..");
  struct sigaction action = {};
  action.sa_handler = remember;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  const int port = free_port();
  std::vector<Child> children;
  for (int rank = 0; rank < flags.count; ++rank) children.push_back(start(rank, flags.count, port, command));
  const auto tell_all = [&](int signal) {
    for (const Child& child : children)
      if (!child.ended) ::kill(child.process, signal);
  };
  int failed = -1;
  for (size_t running = children.size(); running > 0;) {
    if (const int signal = std::exchange(signalled, 0)) tell_all(signal);
    std::vector<pollfd> streams;
    std::vector<std::pair<size_t, int>> whose;
    for (size_t i = 0; i < children.size(); ++i)
      for (int stream = 0; stream < 2; ++stream)
        if (const int pipe = children[i].pipes[static_cast<size_t>(stream)]; pipe >= 0)
          streams.push_back({pipe, POLLIN, 0}), whose.emplace_back(i, stream);
    ::poll(streams.data(), streams.size(), 100);
    for (size_t i = 0; i < streams.size(); ++i)
      if (streams[i].revents != 0) pass_on(children[whose[i].first], whose[i].second, static_cast<int>(whose[i].first));
    for (size_t i = 0; i < children.size(); ++i) {
      Child& child = children[i];
      if (child.ended || ::waitpid(child.process, &child.status, WNOHANG) != child.process) continue;
      child.ended = true;
      --running;
      if (child.status == 0 || failed >= 0) continue;
      failed = static_cast<int>(i);
      // Interrupted or refused, they all end by themselves.
      if (WIFEXITED(child.status) && (WEXITSTATUS(child.status) == 130 || WEXITSTATUS(child.status) == 2)) continue;
      tell_all(SIGKILL);
    }
  }
  for (size_t i = 0; i < children.size(); ++i)
    for (int stream = 0; stream < 2; ++stream)
      while (children[i].pipes[static_cast<size_t>(stream)] >= 0) pass_on(children[i], stream, static_cast<int>(i));
  if (failed < 0) return;
  const int status = children[static_cast<size_t>(failed)].status;
  if (WIFEXITED(status) && (WEXITSTATUS(status) == 130 || WEXITSTATUS(status) == 2)) std::exit(WEXITSTATUS(status));
  throw std::runtime_error(fmt::format("rank {} of {} {}; the same command goes on from the last snapshot", failed,
                                       flags.count, say_status(status)));
}

}  // namespace

Action add_launch(CLI::App& app) {
  auto flags = std::make_shared<LaunchFlags>();
  app.add_option("-n", flags->count, "processes, ranks 0 to n - 1; each --device cuda takes the GPU of its rank")
      ->required()
      ->check(CLI::Range(1, 1024));
  app.prefix_command();
  app.footer("Then the command that they share the windows of: hesper launch -n 4 diag --model DIR ..");
  return [flags, &app](const Words&) { run_launch(*flags, app.remaining()); };
}

}  // namespace hesper::cli
