// SPDX-License-Identifier: Apache-2.0
#include "decode/text_stream.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

namespace fettle::decode {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Bytes at the end of `text` that may begin a stop string.
std::size_t open_end(
    std::string_view text, const std::vector<std::string>& stops) {
  std::size_t longest = 0;
  for (const std::string_view stop : stops) {
    std::size_t size = std::min(stop.size() - 1, text.size());
    while (size > longest && !text.ends_with(stop.substr(0, size))) --size;
    longest = std::max(longest, size);
  }
  return longest;
}

}  // namespace

TextStream::TextStream(
    const text::Tokenizer& tokenizer, std::vector<std::string> stops)
    : tokenizer_(tokenizer), stops_(std::move(stops)) {
  std::erase(stops_, "");
}

std::string TextStream::take_certain() {
  std::size_t first = held_.npos;
  for (const std::string& stop : stops_) {
    first = std::min(first, held_.find(stop));
  }
  if (first != held_.npos) {
    stopped_ = true;
    held_.resize(first);
    return std::exchange(held_, {});
  }
  const std::size_t certain = held_.size() - open_end(held_, stops_);
  std::string text = held_.substr(0, certain);
  held_.erase(0, certain);
  return text;
}

// The new text is what all tokens of the tail give beyond those before: a
// decoder may treat a text's begin in a way of its own. An unfinished character
// decodes to U+FFFD until its last byte is there.
std::string TextStream::add(std::int32_t id) {
  if (stopped_) return {};
  tail_.push_back(id);
  const std::string before =
      tokenizer_.decode(std::span(tail_).first(decoded_));
  const std::string all = tokenizer_.decode(tail_);
  if (all.size() <= before.size() || all.ends_with(kReplacement)) return {};
  held_ += std::string_view(all).substr(before.size());
  tail_.erase(
      tail_.begin(), tail_.begin() + static_cast<std::ptrdiff_t>(decoded_));
  decoded_ = tail_.size();
  return take_certain();
}

std::string TextStream::finish() {
  if (stopped_) return {};
  const std::string before =
      tokenizer_.decode(std::span(tail_).first(decoded_));
  const std::string all = tokenizer_.decode(tail_);
  if (all.size() > before.size()) {
    held_ += std::string_view(all).substr(before.size());
  }
  tail_.clear();
  decoded_ = 0;
  std::string text = take_certain();
  if (!stopped_) text += std::exchange(held_, {});
  return text;
}

}  // namespace fettle::decode
