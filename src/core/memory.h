// SPDX-License-Identifier: Apache-2.0
// Memory of this process and of the machine, in bytes, as Linux reports it.
// Every function throws UserError where /proc can't be read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace fettle {

std::int64_t resident_memory();  // now
// The most since the process began, or since the last reset.
std::int64_t peak_resident_memory();

// Begins a new peak. False where the kernel does not permit it; the peak then
// stays that of the whole process.
bool reset_peak_resident_memory();

// What may still be allocated without swapping: the least of what the kernel
// calls available, the room under the tightest limit of this process's control
// groups (page cache that can be dropped counts as room), and the room under
// its own limits (ulimit -v and -d). `root` is where /proc and /sys are looked
// for.
std::int64_t available_memory(const std::filesystem::path& root = "/");

// The room under this process's own limits (ulimit -v and -d), which count
// addresses and not pages in use; none where it has no such limit.
std::optional<std::int64_t> room_under_own_limits(
    const std::filesystem::path& root = "/");

}  // namespace fettle
