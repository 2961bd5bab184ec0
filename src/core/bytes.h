// SPDX-License-Identifier: Apache-2.0
// Sizes of memory as people write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace fettle {

// Parses "6GiB", "512MiB", "1.5GB", "4096" (bytes) into bytes.
// Throws UsageError when the text is no size or exceeds 2^62 bytes.
std::int64_t parse_bytes(std::string_view text);

// Formats bytes with a binary unit and three significant digits: "1.50 GiB".
std::string format_bytes(std::int64_t bytes);

}  // namespace fettle
