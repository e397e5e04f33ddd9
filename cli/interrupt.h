#pragma once

namespace hesper::cli {

/// From here on SIGINT and SIGTERM are remembered instead of ending the process; a second one ends it.
void catch_interrupts();
bool interrupted();
/// Throws Interrupted (run/run_control.h) when a signal has come.
void stop_if_interrupted();

}  // namespace hesper::cli
