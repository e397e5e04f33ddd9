#include "console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "processes.h"
#include "values.h"

namespace hesper::cli {
namespace {

void put(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace

Console::Console(bool quiet, bool json)
    : quiet_(quiet), json_(json), silent_(process_rank() > 0), terminal_(::isatty(STDOUT_FILENO) == 1) {}

Console::~Console() { end_progress(); }

void Console::note(const std::string& text) {
  line("note: " + text);
  event("note", {{"text", text}});
}

void Console::line(const std::string& text) {
  if (!quiet_) result(text);
}

void Console::result(const std::string& text) {
  if (json_ || silent_) return;
  end_progress();
  put(text + "\n");
}

void Console::event(const std::string& name, nlohmann::json fields) {
  if (!json_ || silent_) return;
  nlohmann::ordered_json out = {{"event", name}};
  for (const auto& [key, value] : fields.items()) out[key] = value;
  put(out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void Console::progress(const Progress& p) {
  if (quiet_ || silent_) return;
  const auto now = Clock::now();
  const double since = std::chrono::duration<double>(now - last_).count();
  const bool last = p.done == p.units;
  if (since < (json_ ? 1 : terminal_ ? 0.1 : 10) && !(last && (json_ || terminal_))) return;
  last_ = now;
  const double left = p.done > 0 ? p.seconds * static_cast<double>(p.units - p.done) / static_cast<double>(p.done) : 0;
  if (json_) {
    event("progress", {{"done", p.done},
                       {"units", p.units},
                       {"products", p.products},
                       {"seconds", p.seconds},
                       {"left", left},
                       {"bar", p.bar > 0 ? nlohmann::json(p.bar) : nlohmann::json()}});
    return;
  }
  const std::string rate =
      p.products > 0 && p.seconds > 0 ? fmt::format(", {:.3g} products/s", p.products / p.seconds) : "";
  const std::string bar = p.bar > 0 ? fmt::format(", error {:.3g}%", 100 * p.bar) : "";
  const std::string text = fmt::format("{}/{} units{}, {} left{}", p.done, p.units, rate, say_seconds(left), bar);
  put(terminal_ ? "\r" + text + "\x1b[K" : text + "\n");
  open_ = terminal_;
}

void Console::end_progress() {
  if (open_) put("\r\x1b[K");
  open_ = false;
}

}  // namespace hesper::cli
