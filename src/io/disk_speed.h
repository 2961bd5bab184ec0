// SPDX-License-Identifier: Apache-2.0
// How fast a file comes from its disk.
#pragma once

#include <cstdint>
#include <filesystem>

namespace fettle::io {

// Bytes a second of reading the first `bytes` of a file (or all of it, where it
// is smaller) after asking the system to forget what it holds of them. Memory
// of the system that can't be dropped makes it look faster. Throws UserError
// when the file can't be read or is empty.
double measure_read(const std::filesystem::path& path, std::uint64_t bytes);

}  // namespace fettle::io
