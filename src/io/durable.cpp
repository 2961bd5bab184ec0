// SPDX-License-Identifier: Apache-2.0
#include "io/durable.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>
#include <vector>

#include "core/error.h"
#include "io/descriptor.h"
#include "io/file.h"

namespace fettle::io {
namespace {

namespace fs = std::filesystem;

// A folder taken away while it is used is the user's doing, not a bug.
template <typename Work>
void work_at(const fs::path& path, Work work) {
  try {
    work();
  } catch (const fs::filesystem_error& error) {
    throw UserError(
        "output",
        path.string(),
        "cannot be changed: " + error.code().message());
  }
}

fs::path hidden(const fs::path& path, std::string_view what) {
  return path.parent_path() / (std::string(kUnfinished) + std::string(what) +
                               path.filename().string());
}

}  // namespace

fs::path unfinished(const fs::path& path) { return hidden(path, "new-"); }

void sync_path(const fs::path& path) {
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  // Some file systems can't sync a folder (EINVAL); they keep its order anyway.
  if (!descriptor.valid() ||
      (::fsync(descriptor.get()) != 0 && errno != EINVAL)) {
    throw UserError(
        "output",
        path.string(),
        "cannot be made durable: " + error_text(errno));
  }
}

void sync_tree(const fs::path& folder) {
  work_at(folder, [&] {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      const auto type = entry.symlink_status().type();
      if (type == fs::file_type::regular || type == fs::file_type::directory) {
        sync_path(entry.path());
      }
    }
  });
  sync_path(folder);
}

void replace_file(const fs::path& path, std::string_view text) {
  write_file(unfinished(path), text);
  work_at(path, [&] { fs::rename(unfinished(path), path); });
}

void make_folder(
    const fs::path& path,
    const std::function<void(const fs::path& folder)>& fill) {
  const fs::path next = unfinished(path);
  work_at(next, [&] {
    fs::remove_all(next);
    fs::create_directory(next);
  });
  try {
    fill(next);
    sync_tree(next);
    remove_tree(path);
    work_at(path, [&] { fs::rename(next, path); });
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(next, ignored);
    throw;
  }
  sync_path(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

void remove_tree(const fs::path& path) {
  work_at(path, [&] {
    const fs::path gone = hidden(path, "old-");
    const auto type = fs::symlink_status(path).type();
    if (type == fs::file_type::not_found) return;
    if (type != fs::file_type::directory) {
      fs::remove(path);
      return;
    }
    fs::remove_all(gone);
    fs::rename(path, gone);
    fs::remove_all(gone);
  });
}

void copy_contents(const fs::path& from, const fs::path& to) {
  constexpr std::uint64_t kPiece = std::uint64_t{1} << 20;
  const auto source = open_file(from);
  std::error_code ignored;
  fs::remove(to, ignored);  // it may not let itself be written
  const auto file = create_file(to);
  file->reserve(source->size());
  std::vector<std::byte> piece(std::min(kPiece, source->size()));
  for (std::uint64_t done = 0; done < source->size(); done += piece.size()) {
    piece.resize(std::min(kPiece, source->size() - done));
    source->read_at(done, piece);
    file->append(piece);
  }
  file->close();
}

void link_or_copy(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::remove(to, error);
  fs::create_hard_link(from, to, error);
  if (error) copy_contents(from, to);  // not every file system has links
}

}  // namespace fettle::io
