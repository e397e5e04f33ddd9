#pragma once
// Which files of a dataset hold a split: repositories have no index of them, but names that say it.
//   wikitext-2-raw-v1/test-00000-of-00001.parquet   data/train-00000-of-00004.parquet
//   en/c4-validation.00000-of-00008.json.gz
#include <cstddef>
#include <string>

#include "hub/repository.h"

namespace hesper {

struct DatasetRequest {
  std::string config;          // a folder on the way to the files; "": the files must lie in one folder
  std::string split = "test";  // a word of the file's name, or a folder
  std::string file = {};       // one file by its path, instead of both
};

inline constexpr size_t max_dataset_files = 100;

/// Files of texts (.parquet, else .jsonl and .json.gz lines, else .txt; .gz too), sorted. Throws std::runtime_error,
/// "WHERE: ..", that names what there is where nothing fits, where several configurations do, where some of "-of-N" are
/// missing, or where there are more than max_dataset_files.
ChosenFiles choose_dataset_files(const RepositoryListing& listing, const DatasetRequest& request,
                                 const std::string& where);

}  // namespace hesper
