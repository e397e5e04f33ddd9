#pragma once
// What the tool says on standard output: text for people, or JSON lines (--json), or nothing but results (--quiet). Of
// many processes rank 0 alone says it.
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "run/run_control.h"

namespace hesper::cli {

class Console {
 public:
  Console(bool quiet, bool json);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  void note(const std::string& text);    // something the user may want to know
  void line(const std::string& text);    // text, unless quiet
  void result(const std::string& text);  // text, also when quiet
  /// {"event": name, ...}, with --json.
  void event(const std::string& name, nlohmann::json fields);
  /// One line that is written over on a terminal; elsewhere a line every ten seconds, an event every second.
  void progress(const Progress& progress);
  void end_progress();
  bool json() const { return json_; }
  bool quiet() const { return quiet_; }

 private:
  using Clock = std::chrono::steady_clock;
  bool quiet_, json_;
  bool silent_;  // another rank than 0
  bool terminal_;
  bool open_ = false;  // a progress line without its end
  Clock::time_point last_ = Clock::now();
};

}  // namespace hesper::cli
