// Any bytes as what a hub's server says: a listing of files, an index of shards, headers. Read, or refused with
// std::runtime_error; whatever is read is safe to become a path.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>

#include "hub/dataset_files.h"
#include "hub/model_files.h"
#include "hub/repository.h"

namespace {

void refused_or_done(const std::function<void()>& read) {
  try {
    read();
  } catch (const std::runtime_error&) {
  }
}

// Joined to a folder, the path stays below it.
void check_path(const std::string& path) {
  const std::string whole = "/" + path + "/";
  for (const char* part : {"//", "/./", "/../"}) {
    if (whole.find(part) != std::string::npos) std::abort();
  }
  if (path.empty() || path.find('\0') != std::string::npos || path.find('\\') != std::string::npos) std::abort();
}

void check_chosen(const hesper::RepositoryListing& listing, const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    if (!std::binary_search(listing.files.begin(), listing.files.end(), file)) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  refused_or_done([&] {
    const hesper::RepositoryListing listing = hesper::parse_listing(text, "listing");
    if (!hesper::is_commit(listing.commit)) std::abort();
    for (const std::string& file : listing.files) check_path(file);
    check_chosen(listing, hesper::tokenizer_files(listing));
    refused_or_done([&] { check_chosen(listing, {hesper::weights_file(listing, "org/name")}); });
    for (const char* split : {"train", "test"}) {
      refused_or_done([&] {
        check_chosen(listing, hesper::choose_dataset_files(listing, {"", split}, "org/name").files);
      });
    }
  });
  refused_or_done([&] {
    const hesper::RepositoryListing listing{std::string(40, 'a'), {"model-1.safetensors", "model-2.safetensors"}};
    check_chosen(listing, hesper::shards_of(text, listing, "index"));
  });
  refused_or_done([&] { check_path(hesper::parse_etag(text, "etag")); });
  refused_or_done([&] {
    if (hesper::parse_size(text, "size") < 0) std::abort();
  });
  if (hesper::is_revision(text)) check_path(text);
  if (hesper::is_repository_id(text))
    check_path(hesper::Repository{hesper::RepositoryKind::model, text}.cache_folder());
  return 0;
}
