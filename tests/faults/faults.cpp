// A library that LD_PRELOAD puts before libc: the N-th call of write, fsync or rename on a file below a folder fails.
//   HESPER_FAULT=enospc:3  eio:3  short:3 (half the bytes, then ENOSPC)  fsync:1  rename:1
#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Fault {
  char kind[16] = "";
  long after = 0;
  Fault() {
    if (const char* said = std::getenv("HESPER_FAULT")) std::sscanf(said, "%15[a-z]:%ld", kind, &after);
  }
  bool is(const char* name) const { return std::strcmp(kind, name) == 0; }
};
const Fault& fault() {
  static const Fault one;
  return one;
}
/// True from the N-th call on: a disk that is full stays full.
bool strikes(const char* kind) {
  static std::atomic<long> calls{0};
  return fault().is(kind) && ++calls >= fault().after;
}
bool is_file(int descriptor) {
  char link[64], path[4096];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t size = ::readlink(link, path, sizeof path - 1);
  if (size <= 0) return false;
  path[size] = '\0';
  return std::strstr(path, ".tmp-") != nullptr || std::strstr(path, ".incomplete") != nullptr;
}
template <class Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

ssize_t write(int descriptor, const void* data, size_t size) {
  static auto* const next = real<ssize_t(int, const void*, size_t)>("write");
  if (fault().after == 0 || !is_file(descriptor)) return next(descriptor, data, size);
  if (strikes("enospc")) return errno = ENOSPC, -1;
  if (strikes("eio")) return errno = EIO, -1;
  static bool cut = false;
  if (strikes("short")) {
    if (cut || size < 2) return errno = ENOSPC, -1;
    cut = true;
    return next(descriptor, data, size / 2);
  }
  return next(descriptor, data, size);
}

int fsync(int descriptor) {
  static auto* const next = real<int(int)>("fsync");
  if (is_file(descriptor) && strikes("fsync")) return errno = EIO, -1;
  return next(descriptor);
}

int rename(const char* from, const char* to) noexcept {
  static auto* const next = real<int(const char*, const char*)>("rename");
  if (strikes("rename")) return errno = EIO, -1;
  return next(from, to);
}
}
