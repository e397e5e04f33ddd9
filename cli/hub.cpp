#include "hub.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string_view>

#include "interrupt.h"
#include "values.h"

namespace hesper::cli {
namespace {

namespace fs = std::filesystem;

}  // namespace

HubSettings hub_settings(const Flags& flags) {
  HubSettings settings = hub_settings_from_environment();
  if (!flags.cache_dir.empty()) settings.cache = flags.cache_dir;
  settings.offline = settings.offline || flags.offline;
  return settings;
}

FetchLine::~FetchLine() { end(); }

FetchEvents FetchLine::events() {
  return {[this](const FetchProgress& progress) { show(progress); },
          [this](const std::string& text) {
            end();
            note(text);
          }};
}

void FetchLine::show(const FetchProgress& p) {
  stop_if_interrupted();
  last_ = p;
  if (p.file.empty() || console_.quiet()) return;
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  const auto now = Clock::now();
  if (std::chrono::duration<double>(now - shown_).count() < (console_.json() ? 1 : terminal ? 0.1 : 10)) return;
  shown_ = now;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  const double rate = static_cast<double>(p.fetched) / seconds;
  console_.event("download", {{"file", p.file}, {"done", p.done}, {"size", p.size}, {"bytes_per_second", rate}});
  if (console_.json()) return;
  const std::string speed = p.fetched == 0 ? ""
                                           : fmt::format(", {}/s, {} left", say_bytes(static_cast<int64_t>(rate)),
                                                         say_seconds(static_cast<double>(p.size - p.done) / rate));
  const std::string text = p.waiting
                               ? fmt::format("{}: another process fetches it, waiting", p.file)
                               : fmt::format("{}: {} of {}{}", p.file, say_bytes(p.done), say_bytes(p.size), speed);
  fmt::print(stderr, "{}", terminal ? fmt::format("\r{}\x1b[K", text) : fmt::format("{}\n", text));
  open_ = terminal;
}

void FetchLine::note(const std::string& text) {
  console_.event("note", {{"text", text}});
  if (!console_.quiet() && !console_.json()) fmt::print(stderr, "note: {}\n", text);
}

void FetchLine::end() {
  if (open_) fmt::print(stderr, "\r\x1b[K");
  open_ = false;
  if (last_.files == 0) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
  note(fmt::format("fetched {} file{}, {}, in {}", last_.files, last_.files > 1 ? "s" : "", say_bytes(last_.fetched),
                   say_seconds(seconds)));
  last_ = {};
}

ModelSource find_model(const char* flag, const std::string& model, const Flags& flags, ModelPart part,
                       Console& console) {
  const bool main_model = std::string_view(flag) == "--model";
  if (fs::exists(model)) {
    if (fs::is_regular_file(model) && !model.ends_with(".gguf")) {
      throw std::invalid_argument(
          fmt::format("{} {}: a file, but a model folder is expected, or a file that ends in .gguf", flag, model));
    }
    if (main_model && !flags.revision.empty()) {
      throw std::invalid_argument(
          fmt::format("--revision {}: of models of the hub, but {} is here on this machine", flags.revision, model));
    }
    return {model, {}};
  }
  if (!is_repository_id(model)) {
    throw std::invalid_argument(fmt::format("{} {}: no such folder, and no ORG/NAME of the hub", flag, model));
  }
  FetchLine line(console);
  const std::string revision = main_model && !flags.revision.empty() ? flags.revision : "main";
  const HubSnapshot snapshot = fetch_model(hub_settings(flags), model, revision, part, line.events());
  return {snapshot.folder.string(), {model, snapshot.commit}};
}

}  // namespace hesper::cli
