#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>

#include "files/atomic_file.h"
#include "temporary_folder.h"

namespace hesper {
namespace {

size_t entries(const std::filesystem::path& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

TEST(AtomicFile, WritesInMissingFoldersAndReplaces) {
  TemporaryFolder folder;
  const auto path = folder / "a/b/result.bin";
  const std::string large(300000, 'x');  // larger than the buffer
  write_file_atomically(path, [&](std::ostream& out) { out << "old"; });
  write_file_atomically(path, [&](std::ostream& out) { out << "new " << 7 << large << '\n'; });
  EXPECT_EQ(read_bytes(path), "new 7" + large + "\n");
  EXPECT_EQ(entries(folder / "a/b"), 1u);
}

TEST(AtomicFile, KeepsTheOldFileWhenTheWriterThrows) {
  TemporaryFolder folder;
  write_bytes(folder / "x", "old");
  const auto failing = [](std::ostream& out) {
    out << "half";
    throw std::logic_error("stopped");
  };
  EXPECT_THROW(write_file_atomically(folder / "x", failing), std::logic_error);
  EXPECT_EQ(read_bytes(folder / "x"), "old");
  EXPECT_EQ(entries(folder.path), 1u);
}

TEST(AtomicFile, UnwritablePlacesAreOneLine) {
  TemporaryFolder folder;
  write_bytes(folder / "file", "");
  const auto message = [](const std::filesystem::path& path) {
    return error_of<std::runtime_error>([&] { write_file_atomically(path, [](std::ostream& out) { out << "x"; }); });
  };
  // The parent is a file; the kernel's folder takes no files from anybody, root included; a folder; a device.
  EXPECT_NE(message(folder / "file/x.pt").find("cannot write " + (folder / "file/x.pt").string() + ": Not a directory"),
            std::string::npos);
  EXPECT_NE(message("/proc/hesper.pt").find("cannot write /proc/hesper.pt"), std::string::npos);
  EXPECT_NE(message(folder.path).find("not a regular file"), std::string::npos);
  EXPECT_NE(message("/dev/null").find("not a regular file"), std::string::npos);
}

TEST(AtomicFile, WritesThroughASymbolicLink) {
  TemporaryFolder folder;
  write_bytes(folder / "real", "old");
  std::filesystem::create_symlink(folder / "real", folder / "link");
  write_file_atomically(folder / "link", [](std::ostream& out) { out << "new"; });
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(read_bytes(folder / "real"), "new");
}

// A file-size limit fails write(2) half-way exactly as a full disk does.
TEST(AtomicFile, AFullDiskLeavesNothing) {
  TemporaryFolder folder;
  write_bytes(folder / "x", "old");
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit small{100000, old_limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = error_of<std::runtime_error>(
      [&] { write_file_atomically(folder / "x", [](std::ostream& out) { out << std::string(500000, 'y'); }); });
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_NE(message.find("File too large"), std::string::npos) << message;
  EXPECT_EQ(read_bytes(folder / "x"), "old");
  EXPECT_EQ(entries(folder.path), 1u);
}

}  // namespace
}  // namespace hesper
