// SPDX-License-Identifier: Apache-2.0
// Multiple-choice questions as rows of data files: Fettle's own form and those
// of well-known data sets, asked as lm-evaluation-harness 0.4.13 asks them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/json.h"

namespace fettle::text {

struct Choice {
  std::string context;       // what stands before it
  std::string continuation;  // what is scored: the choice behind a delimiter
  std::string text;          // the choice alone, whose length counts
};

struct ChoiceRow {
  std::vector<Choice> choices;  // two or more
  std::size_t answer = 0;       // the right one's place
  // Where the question is asked after others with their answers: it belongs
  // before the first of them.
  std::string description;
};

// Reads a row by its keys:
//   context, choices, answer, and maybe delimiter (a space)   as they are
//   question, choices, answer           "Question: ...\nAnswer:"
//   and subject                         MMLU: choices are asked by letter
//   question, choices {text, label}, answerKey   ARC
//   and question_concept                CommonsenseQA: by letter
//   question_stem, choices {text, label}, answerKey   OpenBookQA
//   activity_label, ctx_a, ctx_b, endings, label      HellaSwag
//   goal, sol1, sol2, label             PIQA
//   sentence, option1, option2, answer  WinoGrande
//   passage, question, answer or label  BoolQ
//   support, question, correct_answer, distractor1 to 3   SciQ
// An answer is a place from 0, a label, or a choice's text. Throws UserError
// about the row's subject.
ChoiceRow read_choice_row(const JsonObject& row);

}  // namespace fettle::text
