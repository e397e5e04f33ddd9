#include "hub/dataset_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <set>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "files/printable.h"

namespace hesper {
namespace {

// Of one kind only: many repositories hold the same texts in several.
constexpr std::array<std::array<std::string_view, 3>, 3> kinds = {
    {{".parquet", ".parquet", ".parquet"}, {".jsonl", ".jsonl.gz", ".json.gz"}, {".txt", ".txt.gz", ".txt"}}};

std::vector<std::string> with_ending(const std::vector<std::string>& files,
                                     const std::array<std::string_view, 3>& kind) {
  std::vector<std::string> found;
  std::copy_if(files.begin(), files.end(), std::back_inserter(found), [&](const std::string& file) {
    return std::any_of(kind.begin(), kind.end(), [&](std::string_view ending) { return file.ends_with(ending); });
  });
  return found;
}

std::string folder_of(const std::string& file) {
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? "" : file.substr(0, slash);
}

bool has_folder(const std::string& file, const std::string& name) {
  return fmt::format("/{}/", folder_of(file)).find(fmt::format("/{}/", name)) != std::string::npos;
}

// "en/c4-validation.00000-of-00008.json.gz": c4, validation, 00000, of, 00008, json, gz
std::vector<std::string> words_of(const std::string& file) {
  std::vector<std::string> words(1);
  for (const char c : file.substr(file.rfind('/') + 1)) {
    if (c == '-' || c == '.') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

bool is_of_split(const std::string& file, const std::string& split) {
  const std::vector<std::string> words = words_of(file);
  return has_folder(file, split) || std::find(words.begin(), words.end(), split) != words.end();
}

/// N of "00003-of-0000N"; 0 where the name has none.
size_t parts_of(const std::string& file) {
  const std::vector<std::string> words = words_of(file);
  const auto of = std::find(words.begin(), words.end(), "of");
  if (of == words.end() || of + 1 == words.end()) return 0;
  const std::string& number = *(of + 1);
  size_t parts = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), parts);
  return error == std::errc() && end == number.data() + number.size() ? parts : 0;
}

std::string listed(const std::set<std::string>& names) {
  std::vector<std::string> some;
  for (const std::string& name : names) {
    if (some.size() < 12) some.push_back(printable(name));
  }
  if (names.size() > some.size()) some.push_back(fmt::format("{} more", names.size() - some.size()));
  return fmt::format("{}", fmt::join(some, ", "));
}

}  // namespace

ChosenFiles choose_dataset_files(const RepositoryListing& listing, const DatasetRequest& request,
                                 const std::string& where) {
  const auto fail = [&](const std::string& what) { throw std::runtime_error(fmt::format("{}: {}", where, what)); };
  if (!request.file.empty()) {
    if (!listing.has(request.file)) fail(fmt::format("no file {}", printable(request.file)));
    return {{request.file}};
  }
  bool any = false;
  std::set<std::string> splits, folders;
  for (const auto& kind : kinds) {
    std::vector<std::string> files = with_ending(listing.files, kind);
    any = any || !files.empty();
    std::erase_if(
        files, [&](const std::string& file) { return !request.config.empty() && !has_folder(file, request.config); });
    for (const char* split : {"train", "validation", "test"}) {
      if (std::any_of(files.begin(), files.end(), [&](const std::string& f) { return is_of_split(f, split); })) {
        splits.insert(split);
      }
    }
    std::erase_if(files, [&](const std::string& file) { return !is_of_split(file, request.split); });
    if (files.empty()) continue;
    for (const std::string& file : files) folders.insert(folder_of(file));
    if (folders.size() > 1)
      fail(fmt::format("split {} lies in {}: --config NAME chooses", request.split, listed(folders)));
    if (files.size() > max_dataset_files) {
      fail(fmt::format("split {} has {} files, more than {}: name one of them, {}/{}", request.split, files.size(),
                       max_dataset_files, where, files[0]));
    }
    const size_t parts = parts_of(files[0]);
    if (parts > 0 && files.size() != parts) {
      fail(fmt::format("split {} has {} of its {} files", request.split, files.size(), parts));
    }
    return {files, parts > 0};
  }
  if (!any) fail("no files of texts (.parquet, .jsonl, .json.gz, .txt)");
  fail(fmt::format("no files of split {}{}{}", request.split,
                   request.config.empty() ? "" : fmt::format(" in config {}", request.config),
                   splits.empty() ? ": name one, --dataset ORG/NAME/FILE" : "; there are " + listed(splits)));
  return {};
}

}  // namespace hesper
