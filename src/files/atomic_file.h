#pragma once

#include <filesystem>
#include <functional>
#include <ostream>

namespace hesper {

// Writes a whole file or nothing: missing folders are made, `write` fills a temporary file beside `path`, which is
// synced and renamed over `path`. An existing regular file (or what a symbolic link points to) is replaced.
// On any failure, an exception of `write` included, the temporary is removed and an existing file stays as it was.
// Throws std::runtime_error "cannot write PATH: reason" (full disk, unwritable folder, not a regular file).
void write_file_atomically(const std::filesystem::path& path, const std::function<void(std::ostream&)>& write);

}  // namespace hesper
