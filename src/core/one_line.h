// SPDX-License-Identifier: Apache-2.0
// Messages as a single line that people can read.
#pragma once

#include <string>
#include <string_view>

namespace fettle {

// Control characters become question marks: names from files end up in
// messages. Of a number of more than 24 digits the first stay.
std::string one_line(std::string_view text);

}  // namespace fettle
