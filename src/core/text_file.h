// SPDX-License-Identifier: Apache-2.0
// Small files read whole, and what a path or a file's first bytes are, for
// messages that name what was found.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace fettle {

// Larger than any file of text that a model or a run has.
inline constexpr std::uint64_t kMaxTextFile = std::uint64_t{1} << 30;

// All bytes of a regular file (or of a link to one). Throws UserError, before
// anything is read, when `path` is missing, a folder, a pipe or a device, or
// larger than `most` bytes.
std::string read_text_file(
    const std::filesystem::path& path,
    std::string_view stage,
    std::uint64_t most = kMaxTextFile);

// "a folder", "a pipe", "a device", ...
std::string_view kind_of_file(std::filesystem::file_type type);

// What a file that begins with `head` is and what to do with it, such as "a Git
// LFS pointer, not the file itself; fetch it with git lfs pull"; empty where
// that isn't known. Ten bytes do for all but web pages and pointers.
std::string_view kind_of_content(std::string_view head);

}  // namespace fettle
