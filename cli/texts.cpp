// --dataset and its flags -> one text.
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include "flags.h"
#include "hub.h"
#include "hub/dataset_files.h"
#include "refuse.h"
#include "text/corpus.h"
#include "text/ids_cache.h"
#include "text/rows.h"

namespace hesper::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* wikitext_id = "Salesforce/wikitext";
const std::map<std::string, std::string> wikitext_configs = {{"wikitext2", "wikitext-2-raw-v1"},
                                                             {"wikitext103", "wikitext-103-raw-v1"}};

std::string column_of(const Flags& flags) { return flags.text_column.empty() ? "text" : flags.text_column; }
std::string split_of(const Flags& flags) { return flags.split.empty() ? "test" : flags.split; }

Text files_of(const Flags& flags, const fs::path& folder, const std::vector<std::string>& files,
              const std::string& name) {
  std::vector<fs::path> paths;
  for (const std::string& file : files) paths.push_back(folder / file);
  if (!flags.text_column.empty() && !holds_rows(paths.front())) {
    refuse("--text-column {}: {} is text without columns", flags.text_column, paths.front().string());
  }
  return {text_document(paths, column_of(flags)), name};
}

/// ORG/NAME of the hub; the text's name is `name`, or says what it is.
Text fetched(const Flags& flags, const std::string& id, const DatasetRequest& request, std::string name,
             Console& console) {
  FetchLine line(console);
  const HubSnapshot snapshot = fetch_dataset(hub_settings(flags), id, request, line.events());
  if (name.empty()) {
    name = !request.file.empty()    ? fmt::format("{}/{}", id, request.file)
           : request.config.empty() ? fmt::format("{} {}", id, request.split)
                                    : fmt::format("{} {} {}", id, request.config, request.split);
  }
  Text text = files_of(flags, snapshot.folder, snapshot.files, name);
  text.origin = {id, snapshot.commit};
  return text;
}

Text wikitext(const Flags& flags, const std::string& named, Console& console) {
  const std::string split = split_of(flags);
  if (split != "train" && split != "validation" && split != "test") {
    refuse("--split {}: {} has train, validation and test", split, named);
  }
  if (!flags.config.empty()) refuse("--config {}: not with --dataset {}, which says it", flags.config, named);
  if (!flags.text_column.empty()) refuse("--text-column {}: not with --dataset {}", flags.text_column, named);
  const std::string name = fmt::format("{} {}", named, split);
  if (!flags.dataset_path.empty()) return {wikitext2_document(flags.dataset_path), name};
  return fetched(flags, wikitext_id, {wikitext_configs.at(named), split}, name, console);
}

/// The dataset's id and the path of a file in it, "" without one: "ORG/NAME", "ORG/NAME/FILE".
std::pair<std::string, std::string> id_and_file(const std::string& text) {
  const size_t second = text.find('/', text.find('/') + 1);
  if (text.find('/') == std::string::npos || second == std::string::npos) return {text, ""};
  return {text.substr(0, second), text.substr(second + 1)};
}

}  // namespace

void refuse_dataset_flags(const Flags& flags, const std::string& with) {
  for (const auto& [flag, value] : {std::pair("--config", flags.config), std::pair("--split", flags.split),
                                    std::pair("--text-column", flags.text_column)}) {
    if (!value.empty()) refuse("{} {}: not with {}", flag, value, with);
  }
}

Text read_text(const Flags& flags, Console& console) {
  const std::string named = flags.dataset.empty() && !flags.dataset_path.empty() ? "wikitext2" : flags.dataset;
  if (named.empty()) refuse("no text: --dataset FILE.txt, or --dataset wikitext2");
  if (!flags.dataset_path.empty() && named != "wikitext2") {
    refuse("--dataset-path {}: for --dataset wikitext2 only", flags.dataset_path);
  }
  if (wikitext_configs.contains(named)) return wikitext(flags, named, console);
  if (fs::is_directory(named)) {
    const DatasetRequest request{flags.config, split_of(flags)};
    const ChosenFiles chosen = choose_dataset_files(list_folder(named, ""), request, named);
    return files_of(flags, named, chosen.files, fmt::format("{} {}", named, request.split));
  }
  const auto [id, file] = id_and_file(named);
  if (!fs::exists(named) && is_repository_id(id) && (file.empty() || is_file_path(file))) {
    // "text/a.txt" is a file that is not there rather than a dataset of that name.
    const bool dataset = !file.empty() || (!named.ends_with(".txt") && !holds_rows(named) && !named.ends_with(".gz"));
    if (dataset) {
      if (!file.empty() && !flags.config.empty()) refuse("--config {}: not with a file of a dataset", flags.config);
      if (!file.empty() && !flags.split.empty()) refuse("--split {}: not with a file of a dataset", flags.split);
      return fetched(flags, id, {flags.config, split_of(flags), file}, "", console);
    }
  }
  if (!flags.config.empty()) refuse("--config {}: not with a file", flags.config);
  if (!flags.split.empty()) refuse("--split {}: not with a file", flags.split);
  return files_of(flags, "", {named}, named);
}

fs::path cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache) return fs::path(cache) / "hesper";
  const char* home = std::getenv("HOME");
  return fs::path(home && *home ? home : ".") / ".cache" / "hesper";
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, const std::string& model, const Text& text) {
  return encode_cached(tokenizer, model, text.text, cache_folder() / "ids");
}

}  // namespace hesper::cli
