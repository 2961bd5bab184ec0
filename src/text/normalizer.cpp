// SPDX-License-Identifier: Apache-2.0
#include "text/normalizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <new>
#include <utility>
#include <vector>

#include "core/error.h"
#include "text/pattern.h"
#include "text/regex.h"
#include "text/utf8.h"

namespace fettle::text {
namespace {

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x80;
  });
}

// Characters whose decomposition came after Unicode 12, the version that the
// reference's tables stop at: it leaves them as they are, so they are cut out.
constexpr std::pair<char32_t, char32_t> kLateDecompositions[] = {
    {0x32ff, 0x32ff},
    {0xa7f2, 0xa7f4},
    {0xab69, 0xab69},
    {0x10781, 0x107ba},
    {0x11938, 0x11938},
    {0x1e030, 0x1e06d},
    {0x1f16c, 0x1f16c},
    {0x1fbf0, 0x1fbf9}};

bool decomposed_late(char32_t c) {
  return std::any_of(
      std::begin(kLateDecompositions),
      std::end(kLateDecompositions),
      [c](const auto& range) { return range.first <= c && c <= range.second; });
}

class UnicodeForm : public Normalizer {
 public:
  explicit UnicodeForm(int options) : options_(options) {}

  void apply(NormalizedText& part) const override {
    if (is_ascii(part.text)) return;
    const std::string_view text = part.text;
    std::string out;
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t size = utf8_length(text[at]);
      if (size > 2 && decomposed_late(decode_at(text, at))) {
        append_form(text.substr(done, at - done), out);
        out += text.substr(at, size);
        done = at + size;
      }
      at += size;
    }
    append_form(text.substr(done), out);
    part.text = std::move(out);
  }

 private:
  void append_form(std::string_view text, std::string& out) const {
    utf8proc_uint8_t* result = nullptr;
    const utf8proc_ssize_t size = utf8proc_map(
        reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
        static_cast<utf8proc_ssize_t>(text.size()),
        &result,
        static_cast<utf8proc_option_t>(options_ | UTF8PROC_STABLE));
    // Well-formed text can fail only for want of memory.
    if (size < 0) throw std::bad_alloc();
    out.append(
        reinterpret_cast<const char*>(result), static_cast<std::size_t>(size));
    std::free(result);
  }

  int options_;
};

// Capital letters that Unicode 16 and 17 added: first, last, and the lower case
// of the first.
struct LateCapitals {
  char32_t first;
  char32_t last;
  char32_t lower;
};

constexpr LateCapitals kLateCapitals[] = {
    {0x1c89, 0x1c89, 0x1c8a},
    {0xa7cb, 0xa7cb, 0x264},
    {0xa7cc, 0xa7cc, 0xa7cd},
    {0xa7ce, 0xa7ce, 0xa7cf},
    {0xa7d2, 0xa7d2, 0xa7d3},
    {0xa7d4, 0xa7d4, 0xa7d5},
    {0xa7da, 0xa7da, 0xa7db},
    {0xa7dc, 0xa7dc, 0x19b},
    {0x10d50, 0x10d65, 0x10d70},
    {0x16ea0, 0x16eb8, 0x16ebb}};

char32_t to_lower(char32_t c) {
  for (const LateCapitals& range : kLateCapitals) {
    if (range.first <= c && c <= range.last) {
      return range.lower + (c - range.first);
    }
  }
  return static_cast<char32_t>(
      utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

class Lowercase : public Normalizer {
 public:
  void apply(NormalizedText& part) const override {
    std::string out;
    out.reserve(part.text.size());
    for (std::size_t at = 0; at < part.text.size();) {
      const char32_t c = decode_at(part.text, at);
      at += utf8_length(part.text[at]);
      // The one letter whose lower case is two characters.
      if (c == 0x130) {
        out += "i\xcc\x87";
      } else {
        append_utf8(out, to_lower(c));
      }
    }
    part.text = std::move(out);
  }
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}

  void apply(NormalizedText& part) const override {
    if (!part.text.empty()) part.text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  void apply(NormalizedText& part) const override {
    std::string out;
    std::size_t copied = 0;
    Regex::Matcher matcher(pattern_);
    const std::string_view text = part.text;
    matcher.for_each(text, [&](Span match) {
      if (match.begin == 0 && match.end > 0 && content_.empty()) {
        part.at_start = false;
      }
      out.append(text.substr(copied, match.begin - copied));
      out.append(content_);
      copied = match.end;
    });
    if (copied == 0 && out.empty()) return;
    out.append(text.substr(copied));
    part.text = std::move(out);
  }

 private:
  Regex pattern_;
  std::string content_;
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}

  void apply(NormalizedText& part) const override {
    const std::string_view text = part.text;
    std::size_t begin = 0;
    std::size_t end = text.size();
    while (left_ && begin < end && is_white_space(decode_at(text, begin))) {
      begin += utf8_length(text[begin]);
    }
    while (right_ && end > begin) {
      const std::size_t last = previous_character(text, end);
      if (!is_white_space(decode_at(text, last))) break;
      end = last;
    }
    if (begin > 0) part.at_start = false;
    part.text = std::string(text.substr(begin, end - begin));
  }

 private:
  bool left_;
  bool right_;
};

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<Normalizer>> steps)
      : steps_(std::move(steps)) {}

  void apply(NormalizedText& part) const override {
    for (const auto& step : steps_) step->apply(part);
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

std::unique_ptr<Normalizer> make_sequence(
    const JsonObject& component, const std::string& subject) {
  const Json& list = component.at("normalizers");
  if (!list.is_array()) component.refuse("normalizers", "must be a list");
  std::vector<std::unique_ptr<Normalizer>> steps;
  for (const Json& item : list) steps.push_back(make_normalizer(item, subject));
  return std::make_unique<NormalizerSequence>(std::move(steps));
}

std::unique_ptr<Normalizer> make_replace(const JsonObject& component) {
  std::string content = component.string("content");
  // Versions of the reference differ in whether "$1" stands for a group.
  if (is_regex_pattern(component, "pattern") &&
      content.find('$') != std::string::npos) {
    component.refuse("content", "refers to a group of the pattern by '$'");
  }
  return std::make_unique<Replace>(
      read_pattern(component, "pattern"), std::move(content));
}

constexpr int kCompose = UTF8PROC_COMPOSE;
constexpr int kDecompose = UTF8PROC_DECOMPOSE;
constexpr int kCompatible = UTF8PROC_COMPAT;

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(
    const Json& value, const std::string& subject) {
  if (value.is_null()) {
    return std::make_unique<NormalizerSequence>(
        std::vector<std::unique_ptr<Normalizer>>());
  }
  const JsonObject component(value, "tokenizer", subject + " 'normalizer'");
  const std::string type = component.string("type");
  if (type == "NFC") return std::make_unique<UnicodeForm>(kCompose);
  if (type == "NFD") return std::make_unique<UnicodeForm>(kDecompose);
  if (type == "NFKC") {
    return std::make_unique<UnicodeForm>(kCompose | kCompatible);
  }
  if (type == "NFKD") {
    return std::make_unique<UnicodeForm>(kDecompose | kCompatible);
  }
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "Prepend") {
    return std::make_unique<Prepend>(component.string("prepend"));
  }
  if (type == "Replace") return make_replace(component);
  if (type == "Strip") {
    return std::make_unique<Strip>(
        component.boolean_or("strip_left", true),
        component.boolean_or("strip_right", true));
  }
  if (type == "Sequence") return make_sequence(component, subject);
  component.refuse("type", fmt::format("'{}' is not supported", type));
}

}  // namespace fettle::text
