#include "files/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <streambuf>
#include <string>
#include <system_error>
#include <vector>

namespace hesper {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path, int error) {
  throw std::runtime_error(fmt::format("cannot write {}: {}", path.string(), std::strerror(error)));
}

// A stream buffer over a descriptor that keeps the errno of its first failed write (std::ofstream loses it).
class DescriptorBuffer : public std::streambuf {
 public:
  explicit DescriptorBuffer(int descriptor) : descriptor_(descriptor), buffer_(1 << 16) {
    setp(buffer_.data(), buffer_.data() + buffer_.size());
  }
  int error() const { return error_; }

 protected:
  int_type overflow(int_type c) override {
    if (sync() != 0) return traits_type::eof();
    if (!traits_type::eq_int_type(c, traits_type::eof())) sputc(traits_type::to_char_type(c));
    return traits_type::not_eof(c);
  }

  int sync() override {
    const bool written = write_all(pbase(), pptr() - pbase());
    setp(buffer_.data(), buffer_.data() + buffer_.size());
    return written ? 0 : -1;
  }

  std::streamsize xsputn(const char* data, std::streamsize size) override {
    if (size < epptr() - pptr()) {
      std::copy_n(data, size, pptr());
      pbump(static_cast<int>(size));
      return size;
    }
    return sync() == 0 && write_all(data, size) ? size : 0;
  }

 private:
  bool write_all(const char* data, std::streamsize size) {
    while (size > 0 && error_ == 0) {
      const ssize_t count = ::write(descriptor_, data, static_cast<size_t>(size));
      if (count >= 0) {
        data += count;
        size -= count;
      } else if (errno != EINTR) {
        error_ = errno;
      }
    }
    return error_ == 0;
  }

  int descriptor_;
  int error_ = 0;
  std::vector<char> buffer_;
};

// The open temporary; closed and removed unless renamed into place.
struct Temporary {
  fs::path path;
  int descriptor = -1;

  explicit Temporary(const fs::path& target) {
    for (int attempt = 0; attempt < 100; ++attempt) {
      path = target;
      path += fmt::format(".tmp-{}-{}", ::getpid(), attempt);
      descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (descriptor >= 0 || errno != EEXIST) break;
    }
    if (descriptor < 0) fail(target, errno);
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  ~Temporary() {
    if (descriptor >= 0) ::close(descriptor);
    if (!path.empty()) ::unlink(path.c_str());
  }

  void rename_to(const fs::path& target) {
    if (::fsync(descriptor) != 0) fail(target, errno);
    const int closed = ::close(descriptor);
    descriptor = -1;
    if (closed != 0) fail(target, errno);
    if (::rename(path.c_str(), target.c_str()) != 0) fail(target, errno);
    path.clear();
  }
};

// The rename itself survives a power cut once its folder is synced; folders that cannot be synced are left.
void sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

}  // namespace

void write_file_atomically(const fs::path& path, const std::function<void(std::ostream&)>& write) {
  std::error_code error;
  fs::path target = path;
  if (fs::is_symlink(path, error)) target = fs::weakly_canonical(path, error);
  if (fs::exists(target, error) && !fs::is_regular_file(target, error)) {
    throw std::runtime_error(fmt::format("cannot write {}: it exists and is not a regular file", path.string()));
  }
  if (!target.parent_path().empty()) {
    error.clear();
    fs::create_directories(target.parent_path(), error);
    if (error) fail(path, error.value());
  }

  Temporary temporary(target);
  DescriptorBuffer buffer(temporary.descriptor);
  std::ostream stream(&buffer);
  write(stream);
  stream.flush();
  if (buffer.error() != 0) fail(path, buffer.error());
  if (!stream) throw std::runtime_error(fmt::format("cannot write {}: the stream failed", path.string()));
  temporary.rename_to(target);
  sync_folder(target.parent_path());
}

}  // namespace hesper
