// SPDX-License-Identifier: Apache-2.0
// Multiple choice by log-likelihood, with the arithmetic of
// lm-evaluation-harness 0.4.13: the choice whose continuation is likeliest
// counts (acc), or the likeliest for its length in characters (acc_norm) or in
// bytes (acc_bytes).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "sweep/log_likelihood.h"
#include "text/choice_row.h"
#include "text/tokenizer.h"

namespace fettle::sweep {

// The questions of a file.
struct ChoiceSet {
  std::string name;
  std::vector<text::ChoiceRow> rows;
};

// Rows that are asked before each question, with their answers.
struct Shots {
  std::vector<text::ChoiceRow> rows;
};

// Throws UserError on a row that is no question, and on a file without one.
ChoiceSet read_choices(const std::filesystem::path& file);

struct ChoiceTokens {
  const text::Tokenizer& tokenizer;
  std::filesystem::path model_folder;
  // Tokens that the model reads at most; what is longer loses its begin.
  std::int64_t most = 0;
};

// All choices of all sets, one after another. Throws UserError on a choice
// without a token of its own, or longer than the model reads.
Continuations encode_choices(
    const std::vector<ChoiceSet>& sets,
    const Shots& shots,
    const ChoiceTokens& tokens);

// A share of right answers and its standard error: the sample's deviation by
// the root of their number; none where there is one.
struct Share {
  double value = 0;
  std::optional<double> error;
};

// n answers, of which `right` are right.
Share share_of(std::int64_t right, std::int64_t n);

struct ChoiceAnswer {
  std::vector<double> log_likelihoods;
  std::size_t by_sum = 0, by_characters = 0, by_bytes = 0;  // chosen
};

struct ChoiceScore {
  std::string name;
  std::vector<ChoiceAnswer> answers;  // of each row
  std::int64_t right = 0, right_norm = 0, right_bytes = 0;

  std::int64_t questions() const;
};

// From the log-likelihoods of all choices of all sets.
std::vector<ChoiceScore> score_choices(
    const std::vector<ChoiceSet>& sets, const std::vector<double>& sums);

}  // namespace fettle::sweep
