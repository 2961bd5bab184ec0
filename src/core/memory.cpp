// SPDX-License-Identifier: Apache-2.0
#include "core/memory.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"

namespace fettle {
namespace {

namespace fs = std::filesystem;

std::optional<std::int64_t> to_number(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return std::nullopt;
  std::int64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data() + begin, text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  return value;
}

// The number after `key` at the start of a line.
std::optional<std::int64_t> field(const fs::path& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key)) {
      return to_number(std::string_view(line).substr(key.size()));
    }
  }
  return std::nullopt;
}

std::int64_t kibibytes(const fs::path& path, std::string_view key) {
  const auto value = field(path, key);
  if (!value) {
    throw UserError(
        "memory",
        path.string(),
        fmt::format("expected a line '{}'; mount /proc to run Fettle", key));
  }
  return *value * 1024;
}

// File names of one version of the control groups' memory controller.
struct GroupFiles {
  const char* limit;
  const char* usage;
  const char* droppable;  // key in memory.stat: page cache not in use
};

constexpr GroupFiles kVersion1{
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "};
constexpr GroupFiles kVersion2{
    "memory.max", "memory.current", "inactive_file "};

constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

// Room in one group; kNoLimit where it sets none ("max" is no number).
std::int64_t room(const fs::path& group, const GroupFiles& files) {
  const auto limit = field(group / files.limit, "");
  const auto usage = field(group / files.usage, "");
  if (!limit || !usage) return kNoLimit;
  const auto droppable =
      field(group / "memory.stat", files.droppable).value_or(0);
  return std::max<std::int64_t>(0, *limit - (*usage - droppable));
}

// The least room of the group `path` below `mount` and of all above it.
std::int64_t least_room(
    const fs::path& mount, std::string_view path, const GroupFiles& files) {
  fs::path inside = fs::path(path).relative_path();
  std::int64_t least = room(mount, files);
  while (!inside.empty()) {
    least = std::min(least, room(mount / inside, files));
    inside = inside.parent_path();
  }
  return least;
}

// Lines of /proc/self/cgroup: "0::/path" (version 2), "4:memory:/path" (1).
std::int64_t group_room(const fs::path& root) {
  const fs::path mount = root / "sys/fs/cgroup";
  std::int64_t least = kNoLimit;
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string names =
        "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (names == ",,") {
      least = std::min(least, least_room(mount, path, kVersion2));
    } else if (names.find(",memory,") != std::string::npos) {
      least = std::min(least, least_room(mount / "memory", path, kVersion1));
    }
  }
  return least;
}

// Room below a limit of this process alone (ulimit); `key` is what counts.
std::int64_t process_room(
    const fs::path& root, __rlimit_resource limit, std::string_view key) {
  struct rlimit bound {};
  if (::getrlimit(limit, &bound) != 0 || bound.rlim_cur == RLIM_INFINITY) {
    return kNoLimit;
  }
  const auto used = field(root / "proc/self/status", key);
  if (!used) return kNoLimit;
  const auto most = static_cast<std::int64_t>(
      std::min<rlim_t>(bound.rlim_cur, static_cast<rlim_t>(kNoLimit)));
  return std::max<std::int64_t>(0, most - *used * 1024);
}

std::int64_t own_room(const fs::path& root) {
  return std::min(
      process_room(root, RLIMIT_AS, "VmSize:"),
      process_room(root, RLIMIT_DATA, "VmData:"));
}

}  // namespace

std::int64_t resident_memory() {
  return kibibytes("/proc/self/status", "VmRSS:");
}

std::int64_t peak_resident_memory() {
  return kibibytes("/proc/self/status", "VmHWM:");
}

bool reset_peak_resident_memory() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

std::int64_t available_memory(const fs::path& root) {
  return std::min(
      {kibibytes(root / "proc/meminfo", "MemAvailable:"),
       group_room(root),
       own_room(root)});
}

std::optional<std::int64_t> room_under_own_limits(const fs::path& root) {
  const std::int64_t room = own_room(root);
  return room == kNoLimit ? std::nullopt : std::optional(room);
}

}  // namespace fettle
