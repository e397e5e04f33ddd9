#include "hub/repository.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "files/printable.h"

namespace hesper {
namespace {

constexpr size_t max_files = 1'000'000;
constexpr int64_t max_file_bytes = int64_t{1} << 53;

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

bool is_id_part(std::string_view part) {
  const auto edge = [](char c) { return c == '-' || c == '.'; };
  return !part.empty() && part.size() <= 96 && std::all_of(part.begin(), part.end(), is_name_character) &&
         !edge(part.front()) && !edge(part.back()) && part.find("--") == std::string_view::npos &&
         part.find("..") == std::string_view::npos;
}

bool stays_below(std::string_view path) {
  while (true) {
    const std::string_view part = path.substr(0, path.find('/'));
    if (part.empty() || part == "." || part == "..") return false;
    if (part.size() == path.size()) return true;
    path.remove_prefix(part.size() + 1);
  }
}

}  // namespace

std::string Repository::cache_folder() const {
  std::string name = kind == RepositoryKind::model ? "models--" : "datasets--";
  for (const char c : id) name += c == '/' ? "--" : std::string(1, c);
  return name;
}

std::string Repository::api_path() const {
  return fmt::format("api/{}/{}", kind == RepositoryKind::model ? "models" : "datasets", id);
}

std::string Repository::web_path() const { return kind == RepositoryKind::model ? id : fmt::format("datasets/{}", id); }

bool RepositoryListing::has(std::string_view file) const {
  return std::binary_search(files.begin(), files.end(), file, std::less<>());
}

bool is_repository_id(std::string_view text) {
  const size_t slash = text.find('/');
  return slash != std::string_view::npos && is_id_part(text.substr(0, slash)) && is_id_part(text.substr(slash + 1));
}

bool is_revision(std::string_view text) {
  const auto printable = [](char c) { return c > ' ' && c < 0x7F && c != '\\'; };
  return text.size() <= 255 && std::all_of(text.begin(), text.end(), printable) && stays_below(text);
}

bool is_commit(std::string_view text) { return text.size() == 40 && std::all_of(text.begin(), text.end(), is_hex); }

bool is_file_path(std::string_view text) {
  const auto usual = [](char c) { return static_cast<unsigned char>(c) >= ' ' && c != 0x7F && c != '\\'; };
  return text.size() <= 1000 && std::all_of(text.begin(), text.end(), usual) && stays_below(text);
}

RepositoryListing parse_listing(const std::string& text, const std::string& where) {
  const auto fail = [&](const std::string& what) { throw std::runtime_error(fmt::format("{}: {}", where, what)); };
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) fail("the answer is not a JSON object");
  const auto sha = json.find("sha"), siblings = json.find("siblings");
  if (sha == json.end() || !sha->is_string() || !is_commit(sha->get_ref<const std::string&>())) {
    fail("the answer's \"sha\" is not a commit of 40 hex digits");
  }
  if (siblings == json.end() || !siblings->is_array()) fail("the answer has no list \"siblings\" of files");
  if (siblings->size() > max_files) fail(fmt::format("{} files, more than {}", siblings->size(), max_files));
  RepositoryListing listing{sha->get<std::string>(), {}};
  for (const auto& sibling : *siblings) {
    const auto name = sibling.is_object() ? sibling.find("rfilename") : sibling.end();
    if (!sibling.is_object() || name == sibling.end() || !name->is_string()) fail("a file without a name is listed");
    const auto& file = name->get_ref<const std::string&>();
    if (!is_file_path(file)) fail(fmt::format("{} is listed, which is no path below a folder", printable(file)));
    listing.files.push_back(file);
  }
  std::sort(listing.files.begin(), listing.files.end());
  return listing;
}

std::string parse_etag(std::string_view header, const std::string& where) {
  std::string_view etag = header;
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  if (etag.empty() || etag.size() > 128 || etag.front() == '.' ||
      !std::all_of(etag.begin(), etag.end(), is_name_character)) {
    throw std::runtime_error(fmt::format("{}: the ETag {} cannot name a file", where, printable(header)));
  }
  return std::string(etag);
}

int64_t parse_size(std::string_view header, const std::string& where) {
  int64_t size = -1;
  const auto [end, error] = std::from_chars(header.data(), header.data() + header.size(), size);
  if (error != std::errc() || end != header.data() + header.size() || size < 0 || size > max_file_bytes) {
    throw std::runtime_error(fmt::format("{}: the size {} is no number of bytes", where, printable(header)));
  }
  return size;
}

}  // namespace hesper
