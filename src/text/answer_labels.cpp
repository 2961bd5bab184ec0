// SPDX-License-Identifier: Apache-2.0
#include "text/answer_labels.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace fettle::text {
namespace {

constexpr EncodeOptions kWrittenByTemplate{.add_special_tokens = false};

// A text, its tokens, and how many of them lie before a byte of it.
class EncodedText {
 public:
  EncodedText(std::string text, const Tokenizer& tokenizer)
      : text_(std::move(text)),
        tokenizer_(tokenizer),
        ids_(tokenizer.encode(text_, kWrittenByTemplate, stretches_)) {}

  const std::vector<std::int32_t>& ids() const { return ids_; }

  // The tokens that the text before byte `end` has as well, from the first on.
  std::size_t tokens_before(std::size_t end) const {
    const auto within = std::lower_bound(
        stretches_.begin(),
        stretches_.end(),
        end,
        [](const EncodedStretch& stretch, std::size_t byte) {
          return stretch.byte_end < byte;
        });
    if (within == stretches_.end()) return ids_.size();
    if (within->byte_end == end) return within->token_end;
    EncodedStretch begin{0, 0};
    if (within != stretches_.begin()) begin = *(within - 1);
    EncodeOptions options = kWrittenByTemplate;
    options.at_start = begin.byte_end == 0;
    const std::string_view part =
        std::string_view(text_).substr(begin.byte_end, end - begin.byte_end);
    const auto ids = tokenizer_.encode(part, options);
    const auto first = ids_.begin() + offset(begin.token_end);
    const auto same = std::mismatch(
        first,
        ids_.begin() + offset(within->token_end),
        ids.begin(),
        ids.end());
    return begin.token_end + static_cast<std::size_t>(same.first - first);
  }

 private:
  static std::ptrdiff_t offset(std::size_t tokens) {
    return static_cast<std::ptrdiff_t>(tokens);
  }

  std::string text_;
  const Tokenizer& tokenizer_;
  std::vector<EncodedStretch> stretches_;
  std::vector<std::int32_t> ids_;
};

}  // namespace

Sample label_answers(
    const std::vector<ChatSegment>& segments,
    const Tokenizer& tokenizer,
    std::span<const std::int32_t> end_ids) {
  std::string text;
  for (const ChatSegment& segment : segments) text += segment.text;
  const EncodedText encoded(std::move(text), tokenizer);
  const auto ends_turn = [&](std::int32_t id) {
    return std::ranges::find(end_ids, id) != end_ids.end();
  };
  Sample sample;
  sample.ids = encoded.ids();
  sample.labels.assign(sample.ids.size(), kMasked);
  std::size_t bytes = 0;
  for (const ChatSegment& segment : segments) {
    const std::size_t begin_byte = bytes;
    bytes += segment.text.size();
    if (!segment.counts) continue;
    const std::size_t begin = encoded.tokens_before(begin_byte);
    const std::size_t end = encoded.tokens_before(bytes);
    bool ended = false;
    for (std::size_t t = begin; t < end; ++t) {
      sample.labels[t] = sample.ids[t];
      ended = ended || ends_turn(sample.ids[t]);
    }
    if (!ended && end > begin && end < sample.ids.size() &&
        ends_turn(sample.ids[end])) {
      sample.labels[end] = sample.ids[end];
    }
  }
  return sample;
}

}  // namespace fettle::text
