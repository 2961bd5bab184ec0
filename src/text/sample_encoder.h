// SPDX-License-Identifier: Apache-2.0
// From one object of a data file to tokens and labels.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/chat_renderer.h"
#include "text/row_form.h"
#include "text/sample.h"
#include "text/tokenizer.h"

namespace fettle::text {

struct SampleOptions {
  // Appended to a completion that doesn't end in it.
  std::optional<std::int32_t> eos_id;
  bool end_text = false;  // appended to a text too
  RowForm form;           // how rows of other forms are read
  // All tokens after which the model ends its turn. One of them right behind an
  // answer that ends in none counts: the header of the next turn is how some
  // models end theirs.
  std::vector<std::int32_t> end_ids;
  // Rows of the model's embedding: every id must be smaller.
  std::int64_t vocab_limit = 0;
  // Where the chat template is; needed for messages only.
  std::filesystem::path model_folder;
  ChatRenderer renderer;
  // Started by the first conversation; copies of these options share it.
  std::shared_ptr<ChatHelper> chat = std::make_shared<ChatHelper>();
};

// Keeps references to the tokenizer. Not for use by several threads at once.
class SampleEncoder {
 public:
  SampleEncoder(const Tokenizer& tokenizer, SampleOptions options);
  ~SampleEncoder();

  // `row` is the text that `object` was parsed from: a chat template gets the
  // row as its owner wrote it. `subject` names it in errors. The form is known
  // by the keys:
  //   {"text"}                  every token counts
  //   {"prompt", "completion"}  the completion counts; the two are encoded
  //                             apart, so that no token spans their border;
  //                             lists of messages are one conversation, whose
  //                             completion counts
  //   {"messages"}              what the assistant said counts; the rendered
  //                             conversation is encoded as one text, and a
  //                             token that spans the end of a turn is masked
  //   {"input_ids", "labels"?}  as id_row.h says
  // Keys that would change what a row means, but have no effect in its form,
  // are refused by name. Throws UserError on any other object, on ids outside
  // of the vocabulary and on labels that don't fit.
  Sample encode(
      const Json& object, std::string_view row, const std::string& subject);

  // After the last object of a file: throws UserError when all of them were
  // conversations without an answer.
  void check_answers() const;

 private:
  Sample encode_own(const JsonObject& object, std::string_view row);
  Sample from_text(const JsonObject& object) const;
  Sample from_completion(const JsonObject& object) const;
  Sample from_messages(const JsonObject& object, std::string_view row);
  Sample from_ids(const JsonObject& object) const;
  void check(const Sample& sample, const std::string& subject) const;

  const Tokenizer& tokenizer_;
  SampleOptions options_;
  bool any_answer_ = false;
  std::string unanswered_;  // the first conversation without an answer
};

}  // namespace fettle::text
