// SPDX-License-Identifier: Apache-2.0
// Sets of characters written as the inside of a PCRE2 character class.
#pragma once

#include <string>
#include <string_view>

namespace fettle::text {

// White space; PCRE2's own class for it also takes U+180E.
inline constexpr std::string_view kSpaceMembers =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\p{Z}";
inline constexpr std::string_view kHexMembers = "0-9A-Fa-f";

// What unicode_additions() adds to a general category: "L" takes all of "Lu",
// "Ll", ...
std::string added_members(std::string_view category);

// What both engines count as word characters, and what is to be added to it.
inline constexpr std::string_view kCommonWordMembers =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}";
std::string added_word_members();

// Word characters in Oniguruma, which counts Latin-1's raised digits.
std::string onig_word_members();

// Word characters in Rust's regex crate, which the reference uses for whole
// words of added tokens and for `Whitespace`.
std::string rust_word_members();

}  // namespace fettle::text
