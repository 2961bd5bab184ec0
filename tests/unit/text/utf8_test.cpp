// SPDX-License-Identifier: Apache-2.0
#include "text/utf8.h"

#include <catch2/catch.hpp>

using namespace fettle::text;

TEST_CASE("each maximal ill-formed part becomes one replacement character") {
  const std::string r = "\xef\xbf\xbd";
  CHECK(repair_utf8("") == "");
  CHECK(
      repair_utf8("plain ascii, longer than eight") ==
      "plain ascii, longer than eight");
  CHECK(
      repair_utf8("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80") ==
      "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  CHECK(
      repair_utf8("a\xff"
                  "b") == "a" + r + "b");
  // The example of Unicode 15.0, table 3-8.
  CHECK(
      repair_utf8("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41") ==
      r + r + r + r + r + r + r + r + "A");
  CHECK(repair_utf8("\xed\xa0\x80") == r + r + r);          // a surrogate
  CHECK(repair_utf8("\xf4\x90\x80\x80") == r + r + r + r);  // above U+10FFFF
  CHECK(repair_utf8("\xe2\x82") == r);                      // cut off: one part
  CHECK(repair_utf8("\xf0\x9f\x98\x41") == r + "A");
  CHECK(repair_utf8("12345678\x80") == "12345678" + r);
  CHECK(is_utf8("12345678\xc3\xa9"));
  CHECK_FALSE(is_utf8("12345678\xc3"));
}

TEST_CASE("code points survive being written and read") {
  for (const char32_t c :
       {U'\x1',
        U'\x7f',
        U'\x80',
        U'\x7ff',
        U'\x800',
        U'\xffff',
        U'\x10000',
        U'\x10ffff'}) {
    std::string text = "x";
    append_utf8(text, c);
    CHECK(is_utf8(text));
    CHECK(decode_at(text, 1) == c);
    CHECK(text.size() == 1 + utf8_length(text[1]));
    CHECK(previous_character(text, text.size()) == 1);
  }
  CHECK(is_white_space(0x3000));
  CHECK_FALSE(is_white_space(0x200b));
  CHECK_FALSE(is_white_space(0x180e));
}
