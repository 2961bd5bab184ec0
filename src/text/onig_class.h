// SPDX-License-Identifier: Apache-2.0
// Bracket expressions of Oniguruma's Ruby syntax: unions, nested brackets,
// intersections, shorthands, properties, POSIX brackets.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace fettle::text {

// Throws what a translator throws about a construct.
using RefuseConstruct = std::function<void(std::string_view construct)>;

// Reads a character that is escaped by a number or a letter ("\\n", "\\x{e9}",
// "\\-"), from the backslash at `at`, which moves behind it. Nothing where the
// escape stands for something else.
std::optional<char32_t> read_escaped_character(
    std::string_view in,
    std::size_t& at,
    bool in_class,
    const RefuseConstruct& refuse);

// Reads "\\p{name}" or "\\P{^name}" as a PCRE2 pattern of one character.
std::string read_property(
    std::string_view in,
    std::size_t& at,
    bool in_class,
    const RefuseConstruct& refuse);

struct ClassOptions {
  bool ignore_case = false;
};

// Reads the bracket expression at `at`, which moves behind it, as a PCRE2
// pattern of one character that matches the same without PCRE2's CASELESS.
std::string read_class(
    std::string_view in,
    std::size_t& at,
    ClassOptions options,
    const RefuseConstruct& refuse);

// The character itself, escaped where it means something, in brackets and out.
std::string character_text(char32_t c);

}  // namespace fettle::text
