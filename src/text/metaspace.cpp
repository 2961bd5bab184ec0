// SPDX-License-Identifier: Apache-2.0
#include "text/metaspace.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "text/onig_pattern.h"
#include "text/split.h"
#include "text/utf8.h"

namespace fettle::text {
namespace {

class Metaspace : public PreTokenizer {
 public:
  Metaspace(MetaspaceOptions options, Split split)
      : options_(std::move(options)), split_(std::move(split)) {}

  void apply(Words& words) const override {
    std::string text;
    text.reserve(words.text.size() * 3 / 2);
    bool kept_start = false;
    for (Span& span : words.spans) {
      const bool first = span.begin == 0 && words.at_start;
      const std::string_view word = words.view(span);
      const std::size_t begin = text.size();
      if (prepends(first) && word.front() != ' ' &&
          word.substr(0, options_.replacement.size()) != options_.replacement) {
        text += options_.replacement;
      }
      for (const char c : word) {
        if (c == ' ') {
          text += options_.replacement;
        } else {
          text += c;
        }
      }
      span = {begin, text.size()};
      kept_start = kept_start || first;
    }
    words.text = std::move(text);
    words.at_start = kept_start;
    if (options_.split) split_.apply(words);
  }

 private:
  bool prepends(bool first) const {
    return options_.prepend == PrependScheme::kAlways ||
           (options_.prepend == PrependScheme::kFirst && first);
  }

  MetaspaceOptions options_;
  Split split_;
};

}  // namespace

MetaspaceOptions read_metaspace(const JsonObject& component) {
  MetaspaceOptions options;
  options.replacement = component.string("replacement");
  if (options.replacement.empty() ||
      options.replacement.size() != utf8_length(options.replacement[0])) {
    component.refuse("replacement", "must be one character");
  }
  options.split = component.boolean_or("split", true);
  const bool prefix = component.boolean_or("add_prefix_space", true);
  const std::string scheme =
      component.string_or("prepend_scheme", prefix ? "always" : "never");
  if (scheme == "first") {
    options.prepend = PrependScheme::kFirst;
  } else if (scheme == "always") {
    options.prepend = PrependScheme::kAlways;
  } else if (scheme == "never") {
    options.prepend = PrependScheme::kNever;
  } else {
    component.refuse(
        "prepend_scheme",
        fmt::format("must be first, always or never, found '{}'", scheme));
  }
  if (!prefix && options.prepend != PrependScheme::kNever) {
    component.refuse(
        "prepend_scheme",
        fmt::format("'{}' contradicts add_prefix_space false", scheme));
  }
  return options;
}

std::unique_ptr<PreTokenizer> make_metaspace_pre_tokenizer(
    const JsonObject& component) {
  MetaspaceOptions options = read_metaspace(component);
  Regex pattern(escape_regex(options.replacement), component.subject());
  return std::make_unique<Metaspace>(
      std::move(options),
      Split(std::move(pattern), {SplitBehavior::kMergedWithNext}));
}

}  // namespace fettle::text
