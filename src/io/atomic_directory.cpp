// SPDX-License-Identifier: Apache-2.0
#include "io/atomic_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"
#include "io/durable.h"

namespace fettle::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStage = "output";
constexpr const char* kLockName = ".fettle-lock";
// In OUT.partial/: what is about to become OUT.
constexpr const char* kWholeName = ".fettle-whole";

[[noreturn]] void refuse(const fs::path& path, const std::string& why) {
  throw UserError(kStage, path.string(), why);
}

// OUT without a slash at its end, which would make ".partial" a name of its
// own.
fs::path without_trailing_slash(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
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

bool is_ours(const fs::path& entry) {
  return entry.filename().string().starts_with(kUnfinished);
}

void remove_entry(const fs::path& entry) {
  if (is_ours(entry)) {
    fs::remove_all(entry);
  } else {
    remove_tree(entry);
  }
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(folder)) {
    entries.push_back(entry.path());
  }
  return entries;
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

Descriptor open_lock(const fs::path& partial, int more) {
  return Descriptor(::open(
      (partial / kLockName).c_str(),
      O_RDWR | O_CLOEXEC | O_NOFOLLOW | more,
      0666));
}

// Tells a folder from every other of the machine.
std::string identity_of(const fs::path& folder) {
  struct stat found {};
  if (::lstat(folder.c_str(), &found) != 0) return "";
  return fmt::format("{}:{}\n", found.st_dev, found.st_ino);
}

// The lock goes last: until then the folder is known to be Fettle's.
void remove_partial(const fs::path& partial) {
  in_folder(partial, [&] {
    for (const fs::path& entry : entries_of(partial)) {
      if (entry.filename() != kLockName) remove_entry(entry);
    }
    fs::remove(partial / kLockName);
    fs::remove(partial);
  });
}

}  // namespace

AtomicDirectory::AtomicDirectory(fs::path out, AtomicDirectoryOptions options)
    : out_(without_trailing_slash(out)),
      partial_(out_.string() + ".partial"),
      options_(std::move(options)) {
  check_absent();
  make_partial();
  lock();
  in_folder(partial_, [&] {
    try {
      // The run that held the lock until now may have committed.
      check_absent();
    } catch (const UserError&) {
      if (!holds_files()) remove_partial(partial_);
      throw;
    }
    take_up();
  });
  unfinished_.emplace([this] { return clear(); });
}

AtomicDirectory::~AtomicDirectory() {
  unfinished_.reset();
  clear();
}

// Whether something stays that a run can go on from; all else is removed.
bool AtomicDirectory::clear() const {
  if (whole_ || !holds_lock()) return false;
  try {
    if (options_.left && !options_.left(partial_).empty()) return true;
    remove_partial(partial_);
  } catch (const std::exception&) {
    // What can't be judged or removed stays.
  }
  return false;
}

void AtomicDirectory::check_absent() const {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(out_, ignored))) return;
  if (!lock_.valid()) remove_remains(out_);
  refuse(out_, "exists already; choose another folder or remove it");
}

void AtomicDirectory::remove_remains(const fs::path& out) {
  const fs::path whole = without_trailing_slash(out);
  const fs::path partial = whole.string() + ".partial";
  std::error_code ignored;
  if (!fs::is_directory(fs::symlink_status(partial, ignored))) return;
  if (fs::is_empty(partial, ignored)) fs::remove(partial, ignored);
  const Descriptor lock = open_lock(partial, 0);
  if (!lock.valid() || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return;
  char text[64];
  const ssize_t size = ::pread(lock.get(), text, sizeof(text), 0);
  if (size <= 0) return;
  const std::string committed(text, static_cast<std::size_t>(size));
  if (committed == identity_of(whole)) remove_partial(partial);
}

void AtomicDirectory::make_partial() const {
  std::error_code error;
  const auto status = fs::symlink_status(partial_, error);
  if (!fs::exists(status)) {
    fs::create_directories(partial_, error);
    if (error) refuse(partial_, "cannot be made: " + error.message());
    return;
  }
  if (fs::is_symlink(status)) {
    refuse(
        partial_,
        "expected a folder, found a link, which is not followed; remove it or "
        "choose another --out");
  }
  if (!fs::is_directory(status)) {
    refuse(
        partial_,
        "expected a folder, found a file; remove it or choose another --out");
  }
  const auto mark = fs::symlink_status(partial_ / kLockName, error);
  if (fs::is_regular_file(mark) || fs::is_empty(partial_, error)) return;
  refuse(
      partial_,
      "holds files and no mark that Fettle made it, so they are left alone; "
      "remove the folder or choose another --out");
}

// A descriptor of a lock file that is no longer the one in OUT.partial/ (its
// run committed or removed it between our two calls) locks nothing.
void AtomicDirectory::lock() {
  lock_ = open_lock(partial_, O_CREAT);
  int error = errno;
  if (!lock_.valid()) {
    refuse(partial_ / kLockName, "cannot be made: " + error_text(error));
  }
  error = 0;
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    error = errno;
  } else if (!holds_lock()) {
    error = ESTALE;
  }
  if (error == 0) return;
  lock_.reset();
  refuse(
      out_,
      fmt::format(
          "another run is writing here ({}); wait for it to end or choose "
          "another folder",
          error_text(error)));
}

bool AtomicDirectory::holds_lock() const {
  struct stat held {};
  struct stat named {};
  return lock_.valid() && ::fstat(lock_.get(), &held) == 0 &&
         ::lstat((partial_ / kLockName).c_str(), &named) == 0 &&
         held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

// Brings what is there to the state that a run begins with.
void AtomicDirectory::take_up() {
  scatter();
  for (const fs::path& entry : entries_of(partial_)) {
    if (is_ours(entry) && entry.filename() != kLockName) fs::remove_all(entry);
  }
  if (options_.resume) {
    resumed_ = holds_files();
    return;
  }
  const std::string left = options_.left ? options_.left(partial_) : "";
  if (!left.empty() && !options_.restart) {
    refuse(partial_, fmt::format("holds {}; {}", left, options_.advice));
  }
  for (const fs::path& entry : entries_of(partial_)) {
    if (!is_ours(entry)) remove_tree(entry);
  }
}

bool AtomicDirectory::holds_files() const {
  return !std::ranges::all_of(entries_of(partial_), is_ours);
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

// Moves what OUT will hold into a folder of its own, and back again.
void AtomicDirectory::gather() const {
  const fs::path whole = partial_ / kWholeName;
  fs::create_directory(whole);
  for (const fs::path& entry : entries_of(partial_)) {
    const std::string name = entry.filename().string();
    const bool stays = std::ranges::any_of(left_out_, [&](const auto& prefix) {
      return name.starts_with(prefix);
    });
    if (!stays && !is_ours(entry)) fs::rename(entry, whole / name);
  }
}

void AtomicDirectory::scatter() const {
  const fs::path whole = partial_ / kWholeName;
  if (!fs::is_directory(fs::symlink_status(whole))) return;
  for (const fs::path& entry : entries_of(whole)) {
    fs::rename(entry, partial_ / entry.filename());
  }
  fs::remove(whole);
}

void AtomicDirectory::commit() {
  FETTLE_ASSERT(lock_.valid());
  if (!holds_lock()) {
    refuse(partial_, "cannot be used: it was removed or moved meanwhile");
  }
  const fs::path whole = partial_ / kWholeName;
  std::unique_lock<std::mutex> held;
  try {
    in_folder(partial_, [&] { gather(); });
    sync_tree(whole);
    whole_ = true;
    // For whoever finds OUT.partial/ beside it; a full disk may do without.
    const std::string text = identity_of(whole);
    [[maybe_unused]] const ssize_t written =
        ::pwrite(lock_.get(), text.data(), text.size(), 0);
    held = Unfinished::hold();
    const int error = rename_to_absent(whole, out_);
    if (error == EEXIST || error == ENOTEMPTY || error == ENOTDIR) {
      check_absent();
    }
    if (error != 0) {
      refuse(out_, "cannot be renamed from .partial: " + error_text(error));
    }
  } catch (...) {
    in_folder(partial_, [&] { scatter(); });
    throw;
  }
  sync_path(out_.has_parent_path() ? out_.parent_path() : fs::path("."));
  try {
    remove_partial(partial_);
  } catch (const UserError&) {
    // OUT is whole; the next run that is given it tries again.
  }
  lock_.reset();
}

}  // namespace fettle::io
