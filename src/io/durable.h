// SPDX-License-Identifier: Apache-2.0
// Changes to a folder that a kill at any moment leaves done or not done. Names
// that begin with kUnfinished count for nothing: they are what such a change
// was at work on, and whoever opens the folder next removes them.
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

namespace fettle::io {

inline constexpr std::string_view kUnfinished = ".fettle-";

// Fsyncs every file and folder below `folder`, and itself. Throws UserError.
void sync_tree(const std::filesystem::path& folder);
// Fsyncs one file or folder. Throws UserError.
void sync_path(const std::filesystem::path& path);

// The name beside `path` under which it is made before it appears.
std::filesystem::path unfinished(const std::filesystem::path& path);

// Writes a small file, in the place of one that is there. Throws UserError.
void replace_file(const std::filesystem::path& path, std::string_view text);

// Makes the folder `path`, with what `fill` writes into the folder that it is
// given, in the place of one that is there. Throws UserError, and what `fill`
// throws.
void make_folder(
    const std::filesystem::path& path,
    const std::function<void(const std::filesystem::path& folder)>& fill);

// Removes a file, or a folder with all in it, which loses its name first.
// Nothing where none is there; links are not followed. Throws UserError.
void remove_tree(const std::filesystem::path& path);

// Gives `to` the bytes of `from`, but neither its mode nor its times, in the
// place of a file that is there. Throws UserError.
void copy_contents(
    const std::filesystem::path& from, const std::filesystem::path& to);

// Like copy_contents, but `to` may become a link to `from`: change neither.
void link_or_copy(
    const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace fettle::io
