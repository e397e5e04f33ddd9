#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "files/read_file.h"
#include "temporary_folder.h"

// Real data beside the checkout, read where it lies; a test that needs a file skips where it is missing.
#define HESPER_NEEDS(file)                                               \
  if (!std::filesystem::exists(hesper::shared_data(file))) {             \
    GTEST_SKIP() << "not there: " << hesper::shared_data(file).string(); \
  }

namespace hesper {

inline std::filesystem::path shared_data(const std::string& file) {
  return std::filesystem::path(HESPER_SHARED_DIR) / "data" / file;
}

// Unpacks FILE.gz into the folder under another name.
inline void unpack(const std::string& file, const std::filesystem::path& target) {
  const std::string command = "gzip -dc '" + shared_data(file).string() + "' > '" + target.string() + "'";
  if (std::system(command.c_str()) != 0) throw std::runtime_error("cannot unpack " + file);
}

inline void copy_shared(const std::string& file, const std::filesystem::path& target) {
  std::filesystem::copy_file(shared_data(file), target);
}

}  // namespace hesper
