#include "interrupt.h"

#include <csignal>

#include "run/exact.h"

namespace hesper::cli {
namespace {

volatile std::sig_atomic_t signalled = 0;  // the one thing that a signal handler may write

void remember(int) { signalled = 1; }

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
  if (interrupted()) throw Interrupted("interrupted");
}

}  // namespace hesper::cli
