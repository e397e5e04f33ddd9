#include "text/file_io.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace hesper {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }
  int get() const { return fd_; }
  int close() {
    const int result = fd_ < 0 ? 0 : ::close(fd_);
    fd_ = -1;
    return result;
  }

 private:
  int fd_;
};

[[noreturn]] void fail(const std::filesystem::path& path, const char* action) {
  throw std::runtime_error(fmt::format("{}: cannot {}: {}", path.string(), action, std::strerror(errno)));
}

// The mode that a plain open() would have given: mkstemp makes files private.
mode_t default_mode() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

}  // namespace

std::string read_file(const std::filesystem::path& path, size_t limit) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) fail(path, "open");
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail(path, "read");
  if (!S_ISREG(status.st_mode)) throw std::runtime_error(fmt::format("{}: not a regular file", path.string()));
  const auto size = static_cast<size_t>(status.st_size);
  if (size > limit) {
    throw std::runtime_error(fmt::format("{}: {} bytes, more than the {} allowed here", path.string(), size, limit));
  }
  std::string bytes(size, '\0');
  for (size_t done = 0; done < size;) {
    const ssize_t n = ::read(file.get(), bytes.data() + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path, "read");
    if (n == 0) throw std::runtime_error(fmt::format("{}: ended at byte {} of {}", path.string(), done, size));
    done += static_cast<size_t>(n);
  }
  return bytes;
}

void write_file_atomic(const std::filesystem::path& path, std::span<const std::span<const std::byte>> parts) {
  std::string temporary = path.string() + ".tmpXXXXXX";
  Descriptor file(::mkstemp(temporary.data()));
  if (file.get() < 0) fail(path, "create");
  try {
    for (std::span<const std::byte> rest : parts) {
      while (!rest.empty()) {
        const ssize_t n = ::write(file.get(), rest.data(), rest.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail(path, "write");
        rest = rest.subspan(static_cast<size_t>(n));
      }
    }
    if (::fchmod(file.get(), default_mode()) != 0 || ::fsync(file.get()) != 0 || file.close() != 0) fail(path, "write");
    if (std::rename(temporary.c_str(), path.c_str()) != 0) fail(path, "write");
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

}  // namespace hesper
