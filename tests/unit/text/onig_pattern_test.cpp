// SPDX-License-Identifier: Apache-2.0
#include "text/onig_pattern.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "text/regex.h"

using Catch::Contains;
using namespace fettle::text;

namespace {

// All matches of an Oniguruma pattern.
std::vector<std::string> matches(
    const std::string& pattern, const std::string& text) {
  const Regex regex(translate_onig(pattern, "t"), "t");
  Regex::Matcher matcher(regex);
  std::vector<std::string> found;
  matcher.for_each(text, [&](Span span) {
    found.push_back(text.substr(span.begin, span.end - span.begin));
  });
  return found;
}

using List = std::vector<std::string>;

}  // namespace

TEST_CASE("shorthands mean what they mean in Oniguruma") {
  CHECK(matches("\\s", "a b\u180e\u3000") == List{" ", "\u3000"});
  CHECK(matches("[^\\s]", "a \u180e") == List{"a", "\u180e"});
  CHECK(matches("\\S+", "a\u180e b") == List{"a\u180e", "b"});
  CHECK(matches("[\\S]", " a") == List{"a"});
  CHECK(matches("\\w+", "a\u00b2\u0903 \u200d_") == List{"a\u00b2\u0903", "_"});
  CHECK(matches("\\W", "a-") == List{"-"});
  CHECK(matches("\\d\\D", "\u0663x") == List{"\u0663x"});
  CHECK(matches("\\h\\H", "fg") == List{"fg"});
  CHECK(matches("\\v", "\n\v") == List{"\v"});
  CHECK(
      matches("\\u00e9\\x{e9}[\\x{e9}]\\x41\\x{41}", "\u00e9\u00e9\u00e9AA")
          .size() == 1);
  CHECK(matches("\\ba", "ab ba a") == List{"a", "a"});
  CHECK(matches("a\\B", "ab ba") == List{"a"});
  CHECK(matches("[\\b]", "\b") == List{"\b"});
  CHECK(matches("\\\u00e9", "\u00e9") == List{"\u00e9"});
}

TEST_CASE("categories know the characters of Unicode 16") {
  CHECK(
      matches("\\p{L}", "\U00010d4a\U00031350") ==
      List{"\U00010d4a", "\U00031350"});
  CHECK(matches("\\P{L}", "\U00010d4a-") == List{"-"});
  CHECK(matches("[^\\p{N}x]", "\U00010d40x-") == List{"-"});
  CHECK(matches("\\p{^L}", "a-") == List{"-"});
  CHECK(matches("\\p{Han}\\p{Lu}", "\u6f22A") == List{"\u6f22A"});
  CHECK(matches("\\P{Han}", "\u6f22A") == List{"A"});
}

TEST_CASE("scripts are those of the characters, not of where they are used") {
  // U+30FC is written in both kana and belongs to neither.
  CHECK(matches("\\p{Hiragana}+", "か\u30fcな") == List{"か", "な"});
  CHECK(matches("\\p{Han}+", "漢\u3001字") == List{"漢", "字"});
  CHECK(matches("\\p{han}", "\U00031350") == List{"\U00031350"});
  CHECK(matches("[^\\p{Arabic}]", "\u060c\u0627") == List{"\u060c"});
  CHECK(matches("\\p{Uppercase Letter}+", "aAB") == List{"AB"});
  CHECK(matches("[\\p{C}]", "\U00010d4a\u0378") == List{"\u0378"});
  CHECK(matches("\\p{Mc}", "\U0001171e") == List{"\U0001171e"});
  CHECK(matches("\\p{Mn}", "\U0001171e").empty());
}

TEST_CASE("brackets hold sets, other brackets and intersections") {
  CHECK(matches("[\\W]", "a- ") == List{"-", " "});
  CHECK(matches("[^\\W\\d]+", "ab1_-") == List{"ab", "_"});
  CHECK(matches("[\\P{L}x]+", "ax1") == List{"x1"});
  CHECK(matches("[[:alpha:][:digit:]]+", "aé1-") == List{"aé1"});
  CHECK(matches("[[:^alpha:]]", "a1") == List{"1"});
  CHECK(matches("[[:punct:]]+", "a+-b") == List{"+-"});
  CHECK(matches("[a-z&&[^aeiou]]+", "hello") == List{"h", "ll"});
  CHECK(matches("[^a-c&&b-d]+", "abcd") == List{"a", "d"});
  CHECK(matches("[a&&]", "a").empty());
  CHECK(matches("[[^a]b]+", "abc") == List{"bc"});
  CHECK(matches("[a[b]-d]+", "ab-cd") == List{"ab-", "d"});
  CHECK(matches("[+--]+", "+,-.") == List{"+,-"});
  CHECK(matches("[a-c-z]+", "ab-dz") == List{"ab-", "z"});
  CHECK(matches("[\\]\\[^-]+", "[]^-") == List{"[]^-"});
  // Raised digits count as word characters outside of brackets only.
  CHECK(matches("\\w", "\u00b2") == List{"\u00b2"});
  CHECK(matches("[\\w]", "\u00b2").empty());
}

TEST_CASE("case is ignored as Unicode folds it") {
  CHECK(matches("(?i)s", "sS\u017f") == List{"s", "S", "\u017f"});
  CHECK(matches("(?i)[a-kσ]+", "AK\u212aΣς") == List{"AK\u212aΣς"});
  CHECK(matches("(?i)[^k]", "kK\u212aa") == List{"a"});
  CHECK(matches("(?i)\\p{Lu}", "aA") == List{"A"});
  CHECK(matches("(?i)[\\p{Sc}a]", "A$") == List{"A", "$"});
  CHECK(matches("(?i)\u0264", "\ua7cb") == List{"\ua7cb"});
  CHECK(matches("(?i:a)b", "Ab aB") == List{"Ab"});
  CHECK(matches("(?i)a(?-i)b", "AB Ab") == List{"Ab"});
  // The rest of a group: "a(?i:b|c)".
  CHECK(matches("a(?i)b|c", "aB C aC") == List{"aB", "aC"});
  CHECK(matches("(?:a(?i)b|c)d", "aBd aCd aCD") == List{"aBd", "aCd"});
}

TEST_CASE("Ruby's intervals are translated") {
  CHECK(matches("a{,2}b", "aaab") == List{"aab"});
  CHECK(matches("\\p{N}{1,3}", "12345") == List{"123", "45"});
  CHECK(matches("(?:ab){2}+", "abababababx") == List{"abababab"});
  CHECK(matches("a{2}?x", "aax x") == List{"aax", "x"});
  CHECK(matches("a{1,2}?", "aa") == List{"a", "a"});
  CHECK(matches("a{x", "a{x") == List{"a{x"});
  CHECK(matches("{", "{") == List{"{"});
}

TEST_CASE("groups and anchors are translated") {
  CHECK(matches("(?i:'s|'t)|(?#note)x", "'S'tX") == List{"'S", "'t"});
  CHECK(matches("(?i)K", "k\u212a") == List{"k", "\u212a"});
  CHECK(matches("(?m:a.)", "a\n") == List{"a\n"});
  CHECK(matches("a.", "a\nab") == List{"ab"});
  CHECK(matches("^b|a$", "a\nb") == List{"a", "b"});
  CHECK(matches("(?<=a)b(?!c)(?<!x)(?=d)(?>d)", "abd") == List{"bd"});
  CHECK(matches("[]a]", "]a") == List{"]", "a"});
}

TEST_CASE("empty matches step by characters") {
  // As rust-onig: none right behind another match.
  CHECK(matches("x*", "\u00e9xx\u00e9") == List{"", "xx", ""});
  CHECK(matches("", "ab").size() == 3);
}

TEST_CASE("what has no translation is refused by name") {
  const auto refuses = [](const std::string& pattern, const std::string& why) {
    CHECK_THROWS_WITH(
        translate_onig(pattern, "t"),
        Contains("[tokenizer] t") && Contains(why));
  };
  refuses("(?s).", "the group '(?s)'");
  refuses("(?x: a)", "the group '(?x:'");
  refuses("(*FAIL)", "a verb");
  refuses("(?#x", "an endless comment");
  refuses("a)", "without its '('");
  refuses("(a", "without its ')'");
  refuses("a\\", "a backslash at its end");
  refuses("\\G", "'\\G'");
  refuses("\\X", "'\\X'");
  refuses("[\\1]", "an octal number");
  refuses("\\01", "an octal number");
  refuses("(?i)(a)\\1", "a reference to a group under (?i)");
  refuses("(?<n>a)\\1", "a number of a group beside names");
  refuses("\\x{g}", "without digits");
  refuses("\\x{41", "without digits");
  refuses("\\xe9", "a byte above");
  refuses("\\x{110000}", "a number that is no character");
  refuses("\\u12", "without four digits");
  refuses("\\pL", "a property without braces");
  refuses("\\p{Klingon}", "the property 'Klingon'");
  refuses("[\\p{Age=6.0}]", "the property 'Age=6.0'");
  refuses("[[:nope:]]", "'[:nope:]'");
  refuses("[a-[b]]", "a range that ends in a bracket");
  refuses("[a-\\d]", "'\\d' in a range");
  refuses("[b-a]", "a range that runs backward");
  refuses("[--a]", "'--' inside brackets");
  refuses("(?i)ß", "'ss' under (?i)");
  refuses("(?i)a(?:s)s", "'ass' under (?i)");
  refuses("(?i)[ß]", "brackets under (?i)");
  refuses("[ab", "without its ']'");
}

TEST_CASE("patterns that don't compile or give up say so") {
  CHECK_THROWS_WITH(Regex("(", "t"), Contains("does not compile"));
  CHECK_THROWS_WITH(
      matches("(a|aa)+$", std::string(60, 'a') + "c"), Contains("gave up"));
  // A run far longer than the compiled code's own stack.
  CHECK(matches("(?:a|b)+", std::string(300000, 'a')).size() == 1);
}

TEST_CASE("escaped literals match themselves") {
  const std::string text = "a.b*c[d]{e}(f)\\^$|?+-#&~ \u2581";
  CHECK(matches(escape_regex(text), text) == List{text});
}
