// SPDX-License-Identifier: Apache-2.0
// Methods of Python's str, on well-formed UTF-8.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fettle::text {

// str.strip(), str.lstrip(): without white space at the ends.
std::string stripped(std::string_view text);
std::string lstripped(std::string_view text);

// Where white space at the end begins: len(text.rstrip()), in bytes.
std::size_t end_without_space(std::string_view text);

// str.replace().
std::string replaced(
    std::string_view text, std::string_view from, std::string_view to);

// str.capitalize(): the first character in title case, the others in lower.
std::string capitalized(std::string_view text);

// str.lower(), character by character.
std::string lowered(std::string_view text);

// len(text): its code points.
std::size_t count_characters(std::string_view text);

}  // namespace fettle::text
