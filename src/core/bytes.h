// SPDX-License-Identifier: Apache-2.0
// Sizes of memory as people read them; size_option.h parses them.
#pragma once

#include <cstdint>
#include <string>

namespace fettle {

// Formats bytes with a binary unit and three significant digits: "1.50 GiB".
std::string format_bytes(std::int64_t bytes);

}  // namespace fettle
