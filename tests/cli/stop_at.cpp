// SPDX-License-Identifier: Apache-2.0
// Loaded before libc (LD_PRELOAD), stops the process before every call that
// changes what lies below a folder, so that a test can look at what a kill
// there would leave. Environment: STOP_BELOW, the folder, and STOP_LOG, a file
// that gets a line for each call before its stop.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

namespace {

template <typename Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

std::string target_of(const std::string& link) {
  char text[4096];
  const ssize_t size = ::readlink(link.c_str(), text, sizeof(text));
  return size > 0 ? std::string(text, static_cast<std::size_t>(size)) : "";
}

std::string path_of(int file) {
  return target_of("/proc/self/fd/" + std::to_string(file));
}

std::string path_at(int folder, const char* path) {
  if (path[0] == '/') return path;
  const std::string from =
      folder == AT_FDCWD ? target_of("/proc/self/cwd") : path_of(folder);
  return from + "/" + path;
}

void about_to(const char* call, const std::string& path) {
  static std::mutex one_at_a_time;
  const char* below = std::getenv("STOP_BELOW");
  const char* log = std::getenv("STOP_LOG");
  if (below == nullptr || log == nullptr || !path.starts_with(below)) return;
  const std::lock_guard guard(one_at_a_time);
  const std::string line = std::string(call) + " " + path + "\n";
  const int file = static_cast<int>(::syscall(
      SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0666));
  ::syscall(SYS_write, file, line.data(), line.size());
  ::syscall(SYS_close, file);
  ::syscall(SYS_kill, ::getpid(), SIGSTOP);
}

// The mode of a file that may be made.
mode_t mode_of(int flags, va_list arguments) {
  return (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
}

int open_as(
    const char* name, int folder, const char* path, int flags, mode_t mode) {
  if ((flags & (O_CREAT | O_TRUNC)) != 0) {
    about_to("open", path_at(folder, path));
  }
  return real<int(int, const char*, int, ...)>(name)(folder, path, flags, mode);
}

FILE* fopen_as(const char* name, const char* path, const char* mode) {
  if (mode[0] != 'r') about_to("open", path_at(AT_FDCWD, path));
  return real<FILE*(const char*, const char*)>(name)(path, mode);
}

ssize_t pwrite_as(
    const char* name, int file, const void* data, size_t size, off_t offset) {
  about_to("write", path_of(file));
  return real<ssize_t(int, const void*, size_t, off_t)>(name)(
      file, data, size, offset);
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_as("openat", AT_FDCWD, path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_as("openat64", AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_as("openat", folder, path, flags, mode);
}

int openat64(int folder, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_as("openat64", folder, path, flags, mode);
}

FILE* fopen(const char* path, const char* mode) {
  return fopen_as("fopen", path, mode);
}

FILE* fopen64(const char* path, const char* mode) {
  return fopen_as("fopen64", path, mode);
}

ssize_t write(int file, const void* data, size_t size) {
  about_to("write", path_of(file));
  return real<ssize_t(int, const void*, size_t)>("write")(file, data, size);
}

ssize_t writev(int file, const iovec* parts, int count) {
  about_to("write", path_of(file));
  return real<ssize_t(int, const iovec*, int)>("writev")(file, parts, count);
}

ssize_t pwrite(int file, const void* data, size_t size, off_t offset) {
  return pwrite_as("pwrite", file, data, size, offset);
}

ssize_t pwrite64(int file, const void* data, size_t size, off64_t offset) {
  return pwrite_as("pwrite64", file, data, size, offset);
}

int fallocate(int file, int mode, off_t offset, off_t size) {
  about_to("fallocate", path_of(file));
  return real<int(int, int, off_t, off_t)>("fallocate")(
      file, mode, offset, size);
}

int ftruncate(int file, off_t size) noexcept {
  about_to("ftruncate", path_of(file));
  return real<int(int, off_t)>("ftruncate")(file, size);
}

int fsync(int file) {
  about_to("fsync", path_of(file));
  return real<int(int)>("fsync")(file);
}

int rename(const char* from, const char* to) noexcept {
  about_to("rename", path_at(AT_FDCWD, from));
  return real<int(const char*, const char*)>("rename")(from, to);
}

int renameat2(
    int from_folder,
    const char* from,
    int to_folder,
    const char* to,
    unsigned flags) noexcept {
  about_to("rename", path_at(from_folder, from));
  return real<int(int, const char*, int, const char*, unsigned)>("renameat2")(
      from_folder, from, to_folder, to, flags);
}

int link(const char* from, const char* to) noexcept {
  about_to("link", path_at(AT_FDCWD, to));
  return real<int(const char*, const char*)>("link")(from, to);
}

int unlink(const char* path) noexcept {
  about_to("unlink", path_at(AT_FDCWD, path));
  return real<int(const char*)>("unlink")(path);
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  about_to("unlink", path_at(folder, path));
  return real<int(int, const char*, int)>("unlinkat")(folder, path, flags);
}

int remove(const char* path) noexcept {
  about_to("unlink", path_at(AT_FDCWD, path));
  return real<int(const char*)>("remove")(path);
}

int rmdir(const char* path) noexcept {
  about_to("rmdir", path_at(AT_FDCWD, path));
  return real<int(const char*)>("rmdir")(path);
}

int mkdir(const char* path, mode_t mode) noexcept {
  about_to("mkdir", path_at(AT_FDCWD, path));
  return real<int(const char*, mode_t)>("mkdir")(path, mode);
}

}  // extern "C"
