// SPDX-License-Identifier: Apache-2.0
// Files that are no JSON Lines, identified by how they begin.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace fettle::text {

// What the file is and what to do about it, as one sentence; empty where it may
// be JSON. `head`: its first bytes, unpacked where it was gzip's.
std::string foreign_kind(
    std::string_view head, const std::filesystem::path& path);

}  // namespace fettle::text
