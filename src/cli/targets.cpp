// SPDX-License-Identifier: Apache-2.0
#include "cli/targets.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <filesystem>
#include <system_error>

#include "core/error.h"
#include "io/atomic_directory.h"

namespace fettle::cli {
namespace {

namespace fs = std::filesystem;

// What a folder's name has behind it while it is written.
constexpr std::string_view kPartial = ".partial";

[[noreturn]] void refuse_target(const Target& target, const std::string& why) {
  const std::string& path = target.path;
  const std::string shown =
      path.size() <= 200 ? path : path.substr(0, 200) + "…";
  throw UserError("output", shown, fmt::format("{} ({})", why, target.option));
}

void require_name(const Target& target, const char* kind) {
  if (!target.path.empty()) return;
  throw UsageError(
      "cli",
      target.option,
      fmt::format(
          "expected the name of a new {}, found an empty one; is a shell "
          "variable unset?",
          kind));
}

// Absolute, without a slash at its end.
fs::path normal_path(const std::string& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

void require_short_names(const Target& target, const fs::path& path) {
  const std::size_t extra = kPartial.size();
  const bool fits =
      path.native().size() + extra < PATH_MAX &&
      std::ranges::all_of(path, [&](const fs::path& name) {
        return name.native().size() + (name == path.filename() ? extra : 0) <=
               NAME_MAX;
      });
  if (!fits) refuse_target(target, "is too long a name; choose another");
}

// The nearest folder that is there must take new entries.
void require_parent(const Target& target, const fs::path& path) {
  fs::path parent = path.parent_path();
  std::error_code error;
  while (!fs::exists(parent, error) && parent != parent.parent_path()) {
    parent = parent.parent_path();
  }
  if (!fs::is_directory(parent, error)) {
    refuse_target(
        target,
        fmt::format("can't be made: {} is not a folder", parent.string()));
  }
  if (::access(parent.c_str(), W_OK | X_OK) != 0) {
    refuse_target(
        target,
        fmt::format(
            "can't be made: {}: {}",
            parent.string(),
            std::generic_category().message(errno)));
  }
}

bool is_inside(const fs::path& inner, const fs::path& outer) {
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end())
             .first == outer.end();
}

void check_pair(const Target& first, const Target& later) {
  const fs::path inner = normal_path(first.path);
  const fs::path outer = normal_path(later.path);
  if (!is_inside(inner, outer)) return;
  throw UsageError(
      "cli",
      later.option,
      inner == outer
          ? fmt::format("names the same folder as {}; choose two", first.option)
          : fmt::format(
                "must be a new folder, and {} lies in it; choose "
                "folders beside each other",
                first.option));
}

}  // namespace

void check_new_folder(const Target& target) {
  require_name(target, "folder");
  const fs::path path = normal_path(target.path);
  require_short_names(target, path);
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(path, ignored))) {
    io::AtomicDirectory::remove_remains(path);
    const bool adapter = fs::exists(path / "adapter.json", ignored);
    refuse_target(
        target,
        adapter ? "exists already and holds a finished adapter: fettle merge "
                  "writes its model; or choose another folder"
                : "exists already; choose another folder or remove it");
  }
  require_parent(target, path);
}

void check_new_folders(const std::vector<Target>& targets) {
  for (auto later = targets.begin(); later != targets.end(); ++later) {
    if (later->path.empty()) continue;
    check_new_folder(*later);
    for (auto first = targets.begin(); first != later; ++first) {
      if (!first->path.empty()) check_pair(*first, *later);
    }
  }
}

void check_new_file(const Target& target) {
  require_name(target, "file");
  const fs::path path = normal_path(target.path);
  require_short_names(target, path);
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) {
    if (!fs::exists(path.parent_path(), error)) {
      refuse_target(
          target,
          fmt::format(
              "can't be made: there is no folder {}",
              path.parent_path().string()));
    }
    return require_parent(target, path);
  }
  if (fs::is_directory(status)) {
    refuse_target(target, "is a folder; name a file");
  }
  if (::access(path.c_str(), W_OK) != 0) {
    refuse_target(
        target,
        fmt::format(
            "can't be written: {}", std::generic_category().message(errno)));
  }
}

}  // namespace fettle::cli
