// SPDX-License-Identifier: Apache-2.0
#include "io/atomic_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"

namespace fettle::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStage = "output";
constexpr const char* kLockName = ".fettle-lock";

[[noreturn]] void refuse(const fs::path& path, const std::string& why) {
  throw UserError(kStage, path.string(), why);
}

// OUT without a slash at its end, which would make ".partial" a name of its
// own.
fs::path without_trailing_slash(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

void sync_path(const fs::path& path) {
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  // Some file systems can't sync a folder (EINVAL); they keep its order anyway.
  if (!descriptor.valid() ||
      (::fsync(descriptor.get()) != 0 && errno != EINVAL)) {
    refuse(path, "cannot be made durable: " + error_text(errno));
  }
}

// A folder taken away while it is used is the user's doing, not a bug.
template <typename Work>
auto in_folder(const fs::path& folder, Work work) {
  try {
    return work();
  } catch (const fs::filesystem_error& error) {
    refuse(folder, "cannot be used: " + error.code().message());
  }
}

void sync_tree(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const auto type = entry.symlink_status().type();
    if (type == fs::file_type::regular || type == fs::file_type::directory) {
      sync_path(entry.path());
    }
  }
  sync_path(folder);
}

// Never replaces anything, where the file system lets us ask for that.
int rename_to_absent(const fs::path& from, const fs::path& to) {
  if (::renameat2(
          AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) ==
      0) {
    return 0;
  }
  if (errno != EINVAL && errno != ENOSYS) return errno;
  return ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

}  // namespace

AtomicDirectory::AtomicDirectory(fs::path out, AtomicDirectoryOptions options)
    : out_(without_trailing_slash(out)),
      partial_(out_.string() + ".partial"),
      options_(options) {
  check_absent();
  make_partial();
  if (const int error = try_lock(); error != 0) {
    refuse(
        out_,
        fmt::format(
            "another run is writing here ({}); wait for it to end or choose "
            "another folder",
            error_text(error)));
  }
  // The run that held the lock until now may have committed.
  check_absent();
  in_folder(partial_, [&] {
    if (!options_.resume) clear();
    resumed_ = holds_files();
  });
}

AtomicDirectory::~AtomicDirectory() {
  if (!lock_.valid() || options_.keep_unfinished) return;
  std::error_code ignored;
  fs::remove_all(partial_, ignored);
}

void AtomicDirectory::check_absent() const {
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(out_, ignored))) {
    refuse(out_, "exists already; choose another folder or remove it");
  }
}

void AtomicDirectory::make_partial() const {
  std::error_code error;
  fs::create_directories(partial_, error);
  if (error) refuse(partial_, "cannot be made: " + error.message());
}

// 0, or why not. A descriptor of a lock file that is no longer the one in
// OUT.partial/ (its run committed or removed it between our two calls) locks
// nothing.
int AtomicDirectory::try_lock() {
  const fs::path path = partial_ / kLockName;
  Descriptor lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
  if (!lock.valid()) refuse(path, "cannot be made: " + error_text(errno));
  struct stat held {};
  struct stat named {};
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return errno;
  if (::fstat(lock.get(), &held) != 0 || ::stat(path.c_str(), &named) != 0 ||
      held.st_ino != named.st_ino || held.st_dev != named.st_dev) {
    return ESTALE;
  }
  lock_ = std::move(lock);
  return 0;
}

bool AtomicDirectory::holds_files() const {
  for (const auto& entry : fs::directory_iterator(partial_)) {
    if (entry.path().filename() != kLockName) return true;
  }
  return false;
}

void AtomicDirectory::clear() const {
  for (const auto& entry : fs::directory_iterator(partial_)) {
    if (entry.path().filename() == kLockName) continue;
    fs::remove_all(entry.path());
  }
}

void AtomicDirectory::require_space(std::uint64_t bytes) const {
  const std::uint64_t available =
      in_folder(partial_, [&] { return fs::space(partial_).available; });
  if (bytes <= available) return;
  refuse(
      out_,
      fmt::format(
          "disk full: needs {}, found {} free; free some space or choose "
          "another folder",
          format_bytes(static_cast<std::int64_t>(bytes)),
          format_bytes(static_cast<std::int64_t>(available))));
}

void AtomicDirectory::commit() {
  FETTLE_ASSERT(lock_.valid());
  in_folder(partial_, [&] { sync_tree(partial_); });
  const int error = rename_to_absent(partial_, out_);
  if (error == EEXIST || error == ENOTEMPTY || error == ENOTDIR) {
    check_absent();
  }
  if (error != 0) {
    refuse(out_, "cannot be renamed from .partial: " + error_text(error));
  }
  // Only now: while OUT.partial/ had its name, the lock kept others out of it.
  std::error_code ignored;
  fs::remove(out_ / kLockName, ignored);
  lock_.reset();
  sync_path(out_);
  sync_path(out_.has_parent_path() ? out_.parent_path() : fs::path("."));
}

}  // namespace fettle::io
