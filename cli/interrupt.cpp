#include "interrupt.h"

#include <unistd.h>

#include <csignal>
#include <string_view>

#include "run/run_control.h"

namespace hesper::cli {
namespace {

volatile std::sig_atomic_t signalled = 0;

void remember(int) {
  signalled = 1;
  if (::isatty(STDERR_FILENO) == 0) return;
  constexpr std::string_view text = "\nstopping after this unit; once more stops at once\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

void catch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = remember;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return signalled != 0; }

void stop_if_interrupted() {
  if (interrupted()) throw Interrupted();
}

}  // namespace hesper::cli
