// SPDX-License-Identifier: Apache-2.0
#include "decode/questions.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "text/python_strings.h"
#include "text/row_reader.h"
#include "text/utf8.h"

namespace fettle::decode {
namespace {

std::string plain_answer(std::string_view found) {
  std::string answer = text::lowered(found);
  std::erase(answer, ',');
  std::erase(answer, '$');
  answer = text::stripped(answer);
  if (answer.ends_with('.')) answer.pop_back();
  return answer;
}

}  // namespace

Question read_question(const JsonObject& row) {
  if (row.has("prompt") && row.has("completion")) {
    return {row.string("prompt"), row.string("completion")};
  }
  if (row.has("prompt") && row.has("answer")) {
    return {row.string("prompt"), " " + row.string("answer")};
  }
  if (row.has("question") && row.has("answer")) {
    return {
        "Question: " + row.string("question") + "\nAnswer:",
        " " + row.string("answer"),
        {"Question:"}};
  }
  std::vector<std::string> keys;
  for (const auto& [key, value] : row.json().items()) keys.push_back(key);
  throw UserError(
      "questions",
      row.subject(),
      fmt::format(
          "expected the keys prompt and completion, prompt and answer, or "
          "question and answer; found {}",
          fmt::join(keys, ", ")));
}

QuestionSet read_questions(const std::filesystem::path& file) {
  QuestionSet set{file.string(), {}};
  text::RowReader rows(file);
  while (const auto row = rows.next()) {
    const Json json = parse_json(*row, "questions", rows.subject());
    set.questions.push_back(
        read_question(JsonObject(json, "questions", rows.subject())));
  }
  if (set.questions.empty()) {
    throw UserError("questions", file.string(), "holds no question");
  }
  return set;
}

std::string shots_text(const std::vector<Question>& shots) {
  std::string text;
  for (const Question& shot : shots) {
    text += shot.prompt + shot.solution + "\n\n";
  }
  return text;
}

AnswerFinder::AnswerFinder(const AnswerOptions& options) : last_(options.last) {
  if (!options.pattern.empty()) pattern_.emplace(options.pattern, "--pattern");
}

std::optional<std::string> AnswerFinder::find(std::string_view text) const {
  const std::string sound = text::repair_utf8(text);
  if (!pattern_) return plain_answer(sound);
  text::Regex::Matcher matcher(*pattern_);
  std::optional<std::string> answer;
  matcher.for_each(sound, [&](const text::Span&) {
    if (answer && !last_) return;
    const text::Span span = matcher.first_group();
    answer = plain_answer(
        std::string_view(sound).substr(span.begin, span.end - span.begin));
  });
  return answer;
}

}  // namespace fettle::decode
