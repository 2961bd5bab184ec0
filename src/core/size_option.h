// SPDX-License-Identifier: Apache-2.0
// Sizes of memory as options give them.
#pragma once

#include <cstdint>
#include <string_view>

namespace fettle {

// Parses a number and its unit into bytes. Units are KiB to TiB (2^10 to 2^40
// bytes), their short forms K to T, KB to TB (10^3 to 10^12 bytes) and B, in
// upper or lower case, with a space in front or none: "12GiB", "12 gib", "12G",
// "1.5GB". Throws UsageError about `option` when the text is no size, has no
// unit ("0" needs none) or exceeds 2^62 bytes.
std::int64_t parse_size(std::string_view text, std::string_view option);

}  // namespace fettle
