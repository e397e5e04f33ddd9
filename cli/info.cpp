#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "commands.h"
#include "console.h"
#include "run/memory.h"
#include "values.h"

namespace hesper::cli {
namespace {

namespace fs = std::filesystem;

fs::path cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache) return fs::path(cache) / "hesper";
  const char* home = std::getenv("HOME");
  return fs::path(home && *home ? home : ".") / ".cache" / "hesper";
}

std::vector<std::string> folders_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.is_directory(error)) names.push_back(entry.path().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

void run_info(bool as_json) {
  Console console(false, as_json);
  const auto row = [&](const char* head, const std::string& text) {
    console.result(fmt::format("{:<12}{}", head, text));
  };
#ifdef HESPER_WITH_CUDA
  const int devices = at::hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
  const std::string cuda = fmt::format("{} device{}", devices, devices == 1 ? "" : "s");
#else
  const std::string cuda = "not in this build (`make cuda` builds it)";
#endif
  const std::string compiler =
#ifdef __clang__
      "clang " __clang_version__;
#else
      "gcc " __VERSION__;
#endif
  const fs::path cache = cache_folder();
  const std::vector<std::string> cached = folders_in(cache);
  row("hesper", HESPER_VERSION);
  row("built with", fmt::format("{}, LibTorch {}", compiler, TORCH_VERSION));
  row("CPU", fmt::format("{} threads, {} kernels", at::get_num_threads(), at::get_cpu_capability()));
  row("CUDA", cuda);
  row("memory", fmt::format("{} free", say_bytes(free_memory())));
  row("cache", cache.string() + (cached.empty() ? " (empty)" : ""));
  for (const std::string& name : cached) row("", name);
  console.event("info", {{"version", HESPER_VERSION},
                         {"compiler", compiler},
                         {"libtorch", TORCH_VERSION},
                         {"threads", at::get_num_threads()},
                         {"cpu", at::get_cpu_capability()},
                         {"cuda", cuda},
                         {"free_memory", free_memory()},
                         {"cache", cache.string()},
                         {"cached_models", cached}});
}

}  // namespace

Action add_info(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  app.add_flag("--json", *json, "one JSON object on standard output");
  return [json](const std::vector<std::string>&) { run_info(*json); };
}

}  // namespace hesper::cli
