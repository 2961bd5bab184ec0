// SPDX-License-Identifier: Apache-2.0
// Questions that are answered by writing, and how an answer is found in what
// was written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/regex.h"

namespace fettle::decode {

struct Question {
  std::string prompt;
  // What follows the prompt where the question is shown with its answer.
  std::string solution;
  // Texts that end an answer where none are asked for.
  std::vector<std::string> stops = {};
};

// Reads a row by its keys:
//   prompt, completion   as they are
//   prompt, answer       the answer behind a space
//   question, answer     "Question: ...\nAnswer:" and the answer behind a
//                        space, up to the next "Question:", as
//                        lm-evaluation-harness asks GSM8K
// Throws UserError about the row's subject.
Question read_question(const JsonObject& row);

// The questions of a file.
struct QuestionSet {
  std::string name;
  std::vector<Question> questions;
};

// Throws UserError on a row that is no question, and on a file without one.
QuestionSet read_questions(const std::filesystem::path& file);

// The questions with their solutions, each before a blank line.
std::string shots_text(const std::vector<Question>& shots);

struct AnswerOptions {
  // PCRE2: what its first group matches is the answer, or all of the match
  // where it has no group. Empty: the whole text.
  std::string pattern;
  bool last = false;  // of several matches, the last
};

class AnswerFinder {
 public:
  // Throws UserError on a pattern that is none.
  explicit AnswerFinder(const AnswerOptions& options);

  // The answer in a text, without white space at its ends, in lower case,
  // without $, commas and a full stop at its end (as GSM8K is compared in
  // lm-evaluation-harness); nothing where the pattern has no match.
  std::optional<std::string> find(std::string_view text) const;

 private:
  std::optional<text::Regex> pattern_;
  bool last_;
};

}  // namespace fettle::decode
