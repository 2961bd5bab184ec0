// SPDX-License-Identifier: Apache-2.0
#include "text/normalizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
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

class UnicodeForm : public Normalizer {
 public:
  explicit UnicodeForm(int options) : options_(options) {}

  void apply(NormalizedText& part) const override {
    if (is_ascii(part.text)) return;
    utf8proc_uint8_t* result = nullptr;
    const utf8proc_ssize_t size = utf8proc_map(
        reinterpret_cast<const utf8proc_uint8_t*>(part.text.data()),
        static_cast<utf8proc_ssize_t>(part.text.size()),
        &result,
        static_cast<utf8proc_option_t>(options_ | UTF8PROC_STABLE));
    // Well-formed text can fail only for want of memory.
    if (size < 0) throw std::bad_alloc();
    part.text.assign(
        reinterpret_cast<const char*>(result), static_cast<std::size_t>(size));
    std::free(result);
  }

 private:
  int options_;
};

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
        append_utf8(
            out,
            static_cast<char32_t>(
                utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
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
