#pragma once
// Models and data by their names on the hub.
#include <chrono>
#include <string>

#include "console.h"
#include "flags.h"
#include "hub/fetch.h"
#include "model/model.h"

namespace hesper::cli {

/// The environment's, with --cache-dir and --offline over it. Throws std::invalid_argument.
HubSettings hub_settings(const Flags& flags);

/// One line on standard error (on standard output ids may go) that is written over on a terminal; elsewhere a line
/// every ten seconds; with --json an event "download" every second. Says at the end what was fetched, if anything was.
/// Stops when a signal has come.
class FetchLine {
 public:
  explicit FetchLine(Console& console) : console_(console) {}
  ~FetchLine();
  FetchLine(const FetchLine&) = delete;
  FetchLine& operator=(const FetchLine&) = delete;
  FetchEvents events();

 private:
  using Clock = std::chrono::steady_clock;
  void show(const FetchProgress& progress);
  void note(const std::string& text);
  void end();

  Console& console_;
  FetchProgress last_;
  bool open_ = false;  // a line without its end
  Clock::time_point begin_ = Clock::now(), shown_ = begin_;
};

/// Files of a model on this machine.
struct ModelSource {
  std::string path;  // folder, or .gguf file
  HubOrigin origin;
};

/// A folder or .gguf file of that name; else the hub's ORG/NAME at --revision (main for other flags than --model), its
/// files fetched. Throws std::invalid_argument, naming the flag, when the text is neither; else as fetch_model.
ModelSource find_model(const char* flag, const std::string& model, const Flags& flags, ModelPart part,
                       Console& console);

}  // namespace hesper::cli
