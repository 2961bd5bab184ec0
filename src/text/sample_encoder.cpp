// SPDX-License-Identifier: Apache-2.0
#include "text/sample_encoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"

namespace fettle::text {
namespace {

using Ids = std::vector<std::int32_t>;

Ids read_ids(const JsonObject& object, std::string_view key) {
  const Json& list = object.at(key);
  if (!list.is_array()) object.refuse(key, "must be a list of integers");
  Ids ids;
  ids.reserve(list.size());
  for (const Json& item : list) {
    // As a double, in which every such integer is exact.
    const bool fits = item.is_number_integer() &&
                      item.get<double>() >= INT32_MIN &&
                      item.get<double>() <= INT32_MAX;
    if (!fits) {
      object.refuse(
          key,
          fmt::format(
              "must be a list of token ids, found {}",
              item.dump().substr(0, 40)));
    }
    ids.push_back(item.get<std::int32_t>());
  }
  return ids;
}

std::size_t common_prefix(const Ids& a, const Ids& b) {
  const auto ends = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<std::size_t>(ends.first - a.begin());
}

}  // namespace

SampleEncoder::SampleEncoder(const Tokenizer& tokenizer, SampleOptions options)
    : tokenizer_(tokenizer), options_(std::move(options)) {}

SampleEncoder::~SampleEncoder() = default;

Sample SampleEncoder::encode(
    const Json& json, std::string_view row, const std::string& subject) {
  const JsonObject object(json, "data", subject);
  const bool completion = object.has("prompt") && object.has("completion");
  const std::array<bool, 4> forms = {
      object.has("text"),
      completion,
      object.has("messages"),
      object.has("input_ids")};
  if (std::count(forms.begin(), forms.end(), true) != 1) {
    throw UserError(
        "data",
        subject,
        "expected the keys of exactly one form: text; messages; prompt and "
        "completion; input_ids and labels");
  }
  Sample sample = forms[0]   ? from_text(object)
                  : forms[1] ? from_completion(object)
                  : forms[2] ? from_messages(object, row)
                             : from_ids(object);
  check(sample, subject);
  return sample;
}

Sample SampleEncoder::from_text(const JsonObject& object) const {
  Sample sample;
  sample.ids = tokenizer_.encode(object.string("text"));
  sample.labels = sample.ids;
  return sample;
}

Sample SampleEncoder::from_completion(const JsonObject& object) const {
  const auto append = [](Ids& to, std::span<const std::int32_t> ids) {
    to.insert(to.end(), ids.begin(), ids.end());
  };
  Sample sample;
  append(sample.ids, tokenizer_.ids_before());
  append(sample.ids, tokenizer_.encode(object.string("prompt"), {false}));
  sample.labels.assign(sample.ids.size(), kMasked);
  Ids completion = tokenizer_.encode(object.string("completion"), {false});
  append(completion, tokenizer_.ids_after());
  if (options_.eos_id &&
      (completion.empty() || completion.back() != *options_.eos_id)) {
    completion.push_back(*options_.eos_id);
  }
  append(sample.ids, completion);
  append(sample.labels, completion);
  return sample;
}

Sample SampleEncoder::from_messages(
    const JsonObject& object, std::string_view row) {
  const Json& messages = object.at("messages");
  if (!messages.is_array() || messages.empty()) {
    object.refuse("messages", "must be a list, not empty");
  }
  for (const Json& message : messages) {
    JsonObject(message, "data", object.subject() + " 'messages'")
        .string("role");
  }
  if (!chat_) {
    chat_ =
        std::make_unique<ChatSession>(options_.renderer, options_.model_folder);
  }
  const auto segments = chat_->render(row, object.subject());
  std::string text;
  for (const ChatSegment& segment : segments) text += segment.text;
  // The template writes special tokens itself.
  Sample sample;
  sample.ids = tokenizer_.encode(text, {false});
  sample.labels.assign(sample.ids.size(), kMasked);
  std::size_t bytes = 0;
  for (const ChatSegment& segment : segments) {
    const std::size_t begin_byte = bytes;
    bytes += segment.text.size();
    if (!segment.counts) continue;
    // Tokens before a border are those that the text before it has as well.
    const auto border = [&](std::size_t end) {
      return common_prefix(
          sample.ids, tokenizer_.encode(text.substr(0, end), {false}));
    };
    const std::size_t begin = border(begin_byte);
    const std::size_t end = border(bytes);
    for (std::size_t t = begin; t < end; ++t) {
      sample.labels[t] = sample.ids[t];
    }
  }
  return sample;
}

Sample SampleEncoder::from_ids(const JsonObject& object) const {
  Sample sample;
  sample.ids = read_ids(object, "input_ids");
  sample.labels =
      object.has("labels") ? read_ids(object, "labels") : sample.ids;
  if (sample.labels.size() != sample.ids.size()) {
    object.refuse(
        "labels",
        fmt::format(
            "has {} entries, but 'input_ids' has {}",
            sample.labels.size(),
            sample.ids.size()));
  }
  return sample;
}

void SampleEncoder::check(
    const Sample& sample, const std::string& subject) const {
  const auto check_id = [&](std::int32_t id, std::string_view what) {
    if (id >= 0 && id < options_.vocab_limit) return;
    throw UserError(
        "data",
        subject,
        fmt::format(
            "{} {} is outside of the model's vocabulary of {} tokens",
            what,
            id,
            options_.vocab_limit));
  };
  for (const std::int32_t id : sample.ids) check_id(id, "token id");
  for (const std::int32_t label : sample.labels) {
    if (label != kMasked) check_id(label, "label");
  }
}

}  // namespace fettle::text
