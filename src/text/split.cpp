// SPDX-License-Identifier: Apache-2.0
#include "text/split.h"

#include <utility>

namespace fettle::text {
namespace {

void push(std::vector<Span>& out, Span span) {
  if (span.begin < span.end) out.push_back(span);
}

// Joins each part to its left neighbour where `joins(part, left)`.
template <typename Joins>
void join_left(
    const std::vector<SplitPart>& parts, std::vector<Span>& out, Joins joins) {
  for (std::size_t i = 0; i < parts.size();) {
    Span word = parts[i].span;
    std::size_t next = i + 1;
    while (next < parts.size() && joins(parts[next], parts[next - 1])) {
      word.end = parts[next++].span.end;
    }
    push(out, word);
    i = next;
  }
}

}  // namespace

void fold_parts(
    const std::vector<SplitPart>& parts,
    SplitBehavior behavior,
    std::vector<Span>& out) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      for (const SplitPart& part : parts) push(out, part.span);
      break;
    case SplitBehavior::kRemoved:
      for (const SplitPart& part : parts) {
        if (!part.is_match) push(out, part.span);
      }
      break;
    case SplitBehavior::kContiguous:
      join_left(parts, out, [](const SplitPart& part, const SplitPart& left) {
        return part.is_match == left.is_match;
      });
      break;
    case SplitBehavior::kMergedWithPrevious:
      join_left(parts, out, [](const SplitPart& part, const SplitPart& left) {
        return part.is_match && !left.is_match;
      });
      break;
    case SplitBehavior::kMergedWithNext:
      join_left(parts, out, [](const SplitPart& part, const SplitPart& left) {
        return !part.is_match && left.is_match;
      });
      break;
  }
}

Split::Split(Regex pattern, SplitOptions options)
    : pattern_(std::move(pattern)), options_(options) {}

void Split::apply(Words& words) const {
  std::vector<Span> out;
  out.reserve(words.spans.size() + words.text.size() / 4);
  Regex::Matcher matcher(pattern_);
  std::vector<SplitPart> parts;
  for (const Span word : words.spans) {
    parts.clear();
    std::size_t end = 0;
    const std::string_view text = words.view(word);
    const auto add = [&](Span span, bool is_match) {
      parts.push_back(
          {{word.begin + span.begin, word.begin + span.end},
           is_match != options_.invert});
    };
    matcher.for_each(text, [&](Span match) {
      if (end != match.begin) add({end, match.begin}, false);
      add(match, true);
      end = match.end;
    });
    if (end != text.size()) add({end, text.size()}, false);
    fold_parts(parts, options_.behavior, out);
  }
  words.spans = std::move(out);
}

}  // namespace fettle::text
