// SPDX-License-Identifier: Apache-2.0
#include "sweep/choices.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "core/json.h"
#include "text/continuation.h"
#include "text/python_strings.h"
#include "text/row_reader.h"

namespace fettle::sweep {
namespace {

// The rows that come first, each with its answer and a blank line.
std::string shots_text(const Shots& shots) {
  std::string text;
  for (const text::ChoiceRow& row : shots.rows) {
    const text::Choice& right = row.choices[row.answer];
    text += right.context + right.continuation + "\n\n";
  }
  return text;
}

// The place of the largest of sums[i] / lengths[i], the first of equal ones.
std::size_t largest(
    const std::vector<double>& sums, const std::vector<double>& lengths) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < sums.size(); ++i) {
    if (sums[i] / lengths[i] > sums[best] / lengths[best]) best = i;
  }
  return best;
}

ChoiceAnswer choose_among(
    const text::ChoiceRow& row, std::vector<double> log_likelihoods) {
  const std::vector<double> ones(row.choices.size(), 1.0);
  std::vector<double> characters, bytes;
  for (const text::Choice& choice : row.choices) {
    characters.push_back(
        static_cast<double>(text::count_characters(choice.text)));
    bytes.push_back(static_cast<double>(choice.text.size()));
  }
  ChoiceAnswer answer;
  answer.by_sum = largest(log_likelihoods, ones);
  answer.by_characters = largest(log_likelihoods, characters);
  answer.by_bytes = largest(log_likelihoods, bytes);
  answer.log_likelihoods = std::move(log_likelihoods);
  return answer;
}

}  // namespace

ChoiceSet read_choices(const std::filesystem::path& file) {
  ChoiceSet set{file.string(), {}};
  text::RowReader rows(file);
  while (const auto row = rows.next()) {
    const Json json = parse_json(*row, "choices", rows.subject());
    set.rows.push_back(
        text::read_choice_row(JsonObject(json, "choices", rows.subject())));
  }
  if (set.rows.empty()) {
    throw UserError("choices", file.string(), "holds no question");
  }
  return set;
}

Continuations encode_choices(
    const std::vector<ChoiceSet>& sets,
    const Shots& shots,
    const ChoiceTokens& tokens) {
  const text::PairEncoder encoder(
      tokens.tokenizer,
      text::prefix_token(tokens.model_folder, tokens.tokenizer));
  const std::string before = shots_text(shots);
  Continuations all;
  for (const ChoiceSet& set : sets) {
    for (std::size_t r = 0; r < set.rows.size(); ++r) {
      const std::string subject = fmt::format("{}, row {}", set.name, r + 1);
      const text::ChoiceRow& row = set.rows[r];
      for (const text::Choice& choice : row.choices) {
        const auto pair = encoder.encode(
            row.description + before + choice.context,
            choice.continuation,
            subject);
        const auto scored = static_cast<std::int64_t>(pair.continuation);
        if (scored > tokens.most) {
          throw UserError(
              "choices",
              subject,
              fmt::format(
                  "a choice has {} tokens, and the model reads {} at most",
                  scored,
                  tokens.most));
        }
        all.add(pair.ids, scored, tokens.most);
      }
    }
  }
  return all;
}

Share share_of(std::int64_t right, std::int64_t n) {
  const auto count = static_cast<double>(n);
  const double mean = static_cast<double>(right) / count;
  if (n < 2) return {mean, std::nullopt};
  return {mean, std::sqrt(mean * (1.0 - mean) / (count - 1.0))};
}

std::int64_t ChoiceScore::questions() const {
  return static_cast<std::int64_t>(answers.size());
}

std::vector<ChoiceScore> score_choices(
    const std::vector<ChoiceSet>& sets, const std::vector<double>& sums) {
  std::vector<ChoiceScore> scores;
  auto next = sums.begin();
  for (const ChoiceSet& set : sets) {
    ChoiceScore score;
    score.name = set.name;
    for (const text::ChoiceRow& row : set.rows) {
      const auto end = next + static_cast<std::ptrdiff_t>(row.choices.size());
      score.answers.push_back(choose_among(row, {next, end}));
      next = end;
      const ChoiceAnswer& answer = score.answers.back();
      score.right += answer.by_sum == row.answer ? 1 : 0;
      score.right_norm += answer.by_characters == row.answer ? 1 : 0;
      score.right_bytes += answer.by_bytes == row.answer ? 1 : 0;
    }
    scores.push_back(std::move(score));
  }
  return scores;
}

}  // namespace fettle::sweep
