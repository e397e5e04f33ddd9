#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <set>

#include "commands.h"
#include "console.h"
#include "report/compare.h"
#include "report/figure.h"
#include "report/heat_map.h"

namespace hesper::cli {
namespace {

namespace fs = std::filesystem;

// FILE or FILE.safetensors:TENSOR -> path without the tensor and the extension.
std::string base_of(const std::string& file) {
  for (const char* extension : {".pt", ".npy", ".aux.safetensors", ".safetensors"}) {
    const size_t at = file.rfind(extension);
    if (at != std::string::npos && at > 0) return file.substr(0, at);
  }
  return file;
}

// "model.decoder.layers.3.self_attn.q_proj.weight" -> "3.self_attn.q_proj"; other names stay.
std::string short_label(std::string name) {
  const size_t layers = name.find("layers.");
  if (layers == std::string::npos) return name;
  name = name.substr(layers + 7);
  return name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name;
}

// Layers at the borders, where the record beside a result says them and they cover a matrix of n rows.
std::vector<AxisGroup> groups_of(const std::string& base, int64_t n) {
  std::ifstream file(base + ".json");
  const auto record = nlohmann::json::parse(file, nullptr, false);
  std::vector<AxisGroup> groups;
  if (!record.is_object() || !record.contains("selection") || !record["selection"].is_array()) return {};
  int64_t next = 0;
  for (const auto& selected : record["selection"]) {
    const auto count = selected.is_object() ? selected.find("count") : selected.end();
    const auto name = selected.is_object() ? selected.find("tensor") : selected.end();
    if (!selected.is_object() || count == selected.end() || !count->is_number_integer() || name == selected.end() ||
        !name->is_string()) {
      return {};
    }
    const auto size = count->get<int64_t>();
    if (size < 1 || size > n - next) return {};
    groups.push_back({short_label(name->get<std::string>()), next, next + size});
    next += size;
  }
  if (next != n || groups.size() < 2) return {};
  return groups;
}

void run_plot(const std::string& file, const std::string& out, const std::string& title, Console& console) {
  HeatMap map;
  map.values = read_matrix(file);
  const std::string base = base_of(file);
  map.title = title.empty() ? fs::path(base).filename().string() : title;
  if (map.values.dim() == 2 && map.values.size(0) == map.values.size(1)) {
    map.groups = groups_of(base, map.values.size(0));
  }
  const std::string target = out.empty() ? base : out;
  nlohmann::json files = nlohmann::json::array();
  for (const fs::path& path : figure_files(target)) {
    write_heat_map(map, path);
    console.line("wrote " + path.string());
    files.push_back(path.string());
  }
  console.event("result", {{"files", files}});
}

}  // namespace

Action add_plot(CLI::App& app) {
  struct PlotFlags {
    std::string file, out, title;
    bool quiet = false, json = false;
  };
  auto flags = std::make_shared<PlotFlags>();
  app.add_option("file", flags->file, ".pt, .npy or .safetensors (FILE:TENSOR)")->required();
  app.add_option("--out", flags->out, "picture, .pdf or .png, or a name for both (beside FILE)");
  app.add_option("--title", flags->title, "instead of the file's name");
  app.add_flag("--quiet", flags->quiet, "say nothing");
  app.add_flag("--json", flags->json, "events on standard output, one JSON object a line");
  return [flags](const std::vector<std::string>&) {
    Console console(flags->quiet, flags->json);
    run_plot(flags->file, flags->out, flags->title, console);
  };
}

}  // namespace hesper::cli
