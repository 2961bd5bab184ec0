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
#include "text/answer_labels.h"
#include "text/id_row.h"
#include "text/row_keys.h"

namespace fettle::text {
namespace {

using Ids = std::vector<std::int32_t>;

}  // namespace

SampleEncoder::SampleEncoder(const Tokenizer& tokenizer, SampleOptions options)
    : tokenizer_(tokenizer), options_(std::move(options)) {}

SampleEncoder::~SampleEncoder() = default;

Sample SampleEncoder::encode(
    const Json& json, std::string_view row, const std::string& subject) {
  const JsonObject object(json, "data", subject);
  Sample sample;
  if (options_.form.empty()) {
    sample = encode_own(object, row);
  } else {
    const std::string mapped = mapped_row(row, options_.form, subject);
    const Json own = parse_json(mapped, "data", subject);
    sample = encode_own(JsonObject(own, "data", subject), mapped);
  }
  check(sample, subject);
  return sample;
}

Sample SampleEncoder::encode_own(
    const JsonObject& object, std::string_view row) {
  const bool completion = object.has("prompt") && object.has("completion");
  any_answer_ = any_answer_ || !object.has("messages");
  const std::array<bool, 4> forms = {
      object.has("text"),
      completion,
      object.has("messages"),
      object.has("input_ids")};
  if (std::count(forms.begin(), forms.end(), true) != 1) {
    throw UserError(
        "data",
        object.subject(),
        fmt::format(
            "expected the keys of exactly one form (text; messages; prompt and "
            "completion; input_ids and labels), found {}",
            form_advice(row)));
  }
  if (forms[2]) return from_messages(object, row);
  if (forms[3]) return from_ids(object);
  if (completion && !object.at("prompt").is_string()) {
    const std::string conversation = conversation_row(row, object.subject());
    const Json own = parse_json(conversation, "data", object.subject());
    return from_messages(
        JsonObject(own, "data", object.subject()), conversation);
  }
  check_text_row(object);
  return completion ? from_completion(object) : from_text(object);
}

Sample SampleEncoder::from_text(const JsonObject& object) const {
  Sample sample;
  sample.ids = tokenizer_.encode(object.string("text"));
  const auto& end = options_.eos_id;
  if (options_.end_text && end &&
      (sample.ids.empty() || sample.ids.back() != *end)) {
    sample.ids.push_back(*end);
    sample.ended = true;
  }
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
  sample.whole = true;
  return sample;
}

Sample SampleEncoder::from_messages(
    const JsonObject& object, std::string_view row) {
  const Json& messages = object.at("messages");
  if (messages.is_string()) {
    object.refuse(
        "messages",
        "must be a list, found a string; if it holds JSON: jq -c '.messages |= "
        "fromjson' FILE > data.jsonl");
  }
  if (!messages.is_array() || messages.empty()) {
    object.refuse("messages", "must be a list, not empty");
  }
  bool answered = false;
  for (const Json& message : messages) {
    const JsonObject fields(message, "data", object.subject() + " 'messages'");
    answered = fields.string("role") == "assistant" || answered;
  }
  any_answer_ = any_answer_ || answered;
  if (!answered && unanswered_.empty()) unanswered_ = object.subject();
  auto& session = options_.chat->session;
  if (!session) {
    session =
        std::make_unique<ChatSession>(options_.renderer, options_.model_folder);
  }
  Sample sample = label_answers(
      session->render(row, object.subject()), tokenizer_, options_.end_ids);
  sample.whole = true;
  return sample;
}

// Where a part is masked, the rest answers it.
Sample SampleEncoder::from_ids(const JsonObject& object) const {
  Sample sample = read_id_row(object);
  sample.whole = std::ranges::count(sample.labels, kMasked) > 0;
  return sample;
}

void SampleEncoder::check_answers() const {
  if (any_answer_ || unanswered_.empty()) return;
  throw UserError(
      "data",
      unanswered_,
      "has no assistant message, nor has any other conversation of the file: "
      "nothing to train on");
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
