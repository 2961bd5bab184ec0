// SPDX-License-Identifier: Apache-2.0
#include "text/choice_row.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <initializer_list>

#include "core/error.h"
#include "text/python_strings.h"

namespace fettle::text {
namespace {

using Strings = std::vector<std::string>;

constexpr const char* kDelimiter = " ";

Strings string_list(const JsonObject& row, std::string_view key) {
  const Json& value = row.at(key);
  if (!value.is_array()) row.refuse(key, "must be a list of strings");
  Strings texts;
  for (const Json& item : value) {
    if (!item.is_string()) row.refuse(key, "must be a list of strings");
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

// One context, and a continuation for each choice.
ChoiceRow asked(
    const std::string& context,
    const Strings& choices,
    const std::string& delimiter = kDelimiter) {
  ChoiceRow row;
  for (const std::string& choice : choices) {
    row.choices.push_back({context, delimiter + choice, choice});
  }
  return row;
}

std::string question_text(const std::string& question) {
  return "Question: " + question + "\nAnswer:";
}

// The choices stand in the question, and letters answer it.
ChoiceRow asked_by_letter(const std::string& question, const Strings& choices) {
  std::string context = stripped(question);
  Strings letters;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    letters.emplace_back(1, static_cast<char>('A' + i));
    context += "\n" + letters.back() + ". " + choices[i];
  }
  return asked(context + "\nAnswer:", letters);
}

std::size_t place_of(
    const JsonObject& row,
    std::string_view key,
    std::int64_t place,
    std::size_t count) {
  if (place < 0 || place >= static_cast<std::int64_t>(count)) {
    row.refuse(
        key,
        fmt::format(
            "must name one of {} choices, found {}; is this a test set "
            "without answers?",
            count,
            place));
  }
  return static_cast<std::size_t>(place);
}

// What an answer may be called.
struct AnswerNames {
  Strings texts;           // of the choices
  Strings labels = {};     // of the choices
  std::int64_t first = 0;  // number of the first choice
};

// The right choice's place: a number, one of the labels or texts, or a letter.
std::size_t answer_place(
    const JsonObject& row, std::string_view key, const AnswerNames& names) {
  const std::size_t count = names.texts.size();
  const Json& value = row.at(key);
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (value.is_number_integer()) {
    return place_of(row, key, row.integer(key) - names.first, count);
  }
  const std::string answer = row.string(key);
  for (const Strings* some : {&names.labels, &names.texts}) {
    const auto found = std::ranges::find(*some, answer);
    if (found != some->end()) {
      return static_cast<std::size_t>(found - some->begin());
    }
  }
  std::int64_t number = 0;
  const char* end = answer.data() + answer.size();
  if (const auto [at, error] = std::from_chars(answer.data(), end, number);
      error == std::errc() && at == end) {
    return place_of(row, key, number - names.first, count);
  }
  if (answer.size() == 1 && answer[0] >= 'A' && answer[0] <= 'Z') {
    return place_of(row, key, answer[0] - 'A', count);
  }
  row.refuse(
      key,
      fmt::format(
          "must be a place from {}, a label or the text of one of {} choices, "
          "found '{}'",
          names.first,
          count,
          answer));
}

ChoiceRow read_own(const JsonObject& row) {
  const Strings choices = string_list(row, "choices");
  ChoiceRow result = asked(
      row.string("context"), choices, row.string_or("delimiter", kDelimiter));
  result.answer = answer_place(row, "answer", {choices});
  return result;
}

ChoiceRow read_question(const JsonObject& row) {
  const Strings choices = string_list(row, "choices");
  ChoiceRow result = asked(question_text(row.string("question")), choices);
  result.answer = answer_place(row, "answer", {choices});
  return result;
}

ChoiceRow read_mmlu(const JsonObject& row) {
  const Strings choices = string_list(row, "choices");
  ChoiceRow result = asked_by_letter(row.string("question"), choices);
  result.answer = answer_place(row, "answer", {choices});
  std::string subject = row.string("subject");
  std::ranges::replace(subject, '_', ' ');
  result.description =
      "The following are multiple choice questions (with answers) about " +
      subject + ".\n\n";
  return result;
}

// Choices as texts with labels, and the right one's label.
struct Labelled {
  Strings texts;
  std::size_t answer;
};

Labelled labelled(const JsonObject& row) {
  const JsonObject choices = row.object("choices");
  Labelled found{string_list(choices, "text"), 0};
  found.answer = answer_place(
      row, "answerKey", {found.texts, string_list(choices, "label")});
  return found;
}

ChoiceRow read_arc(const JsonObject& row) {
  const auto [texts, answer] = labelled(row);
  ChoiceRow result = asked(question_text(row.string("question")), texts);
  result.answer = answer;
  return result;
}

ChoiceRow read_commonsense(const JsonObject& row) {
  const auto [texts, answer] = labelled(row);
  ChoiceRow result =
      asked_by_letter("Question: " + stripped(row.string("question")), texts);
  result.answer = answer;
  return result;
}

ChoiceRow read_openbook(const JsonObject& row) {
  const auto [texts, answer] = labelled(row);
  ChoiceRow result = asked(row.string("question_stem"), texts);
  result.answer = answer;
  return result;
}

// What WikiHow leaves in the texts of HellaSwag goes out.
std::string without_brackets(const std::string& text) {
  std::string plain = replaced(stripped(text), " [title]", ". ");
  for (std::size_t from = 0;;) {
    const std::size_t begin = plain.find('[', from);
    if (begin == plain.npos) break;
    const std::size_t end = plain.find_first_of("]\n", begin);
    if (end != plain.npos && plain[end] == ']') {
      plain.erase(begin, end + 1 - begin);
      from = begin;
    } else {
      from = begin + 1;
    }
  }
  return replaced(plain, "  ", " ");
}

ChoiceRow read_hellaswag(const JsonObject& row) {
  Strings endings = string_list(row, "endings");
  for (std::string& ending : endings) ending = without_brackets(ending);
  ChoiceRow result = asked(
      without_brackets(
          row.string("activity_label") + ": " + row.string("ctx_a") + " " +
          capitalized(row.string("ctx_b"))),
      endings);
  result.answer = answer_place(row, "label", {endings});
  return result;
}

ChoiceRow read_piqa(const JsonObject& row) {
  const Strings choices{row.string("sol1"), row.string("sol2")};
  ChoiceRow result = asked(question_text(row.string("goal")), choices);
  result.answer = answer_place(row, "label", {choices});
  return result;
}

// The choice stands before what is scored.
ChoiceRow read_winogrande(const JsonObject& row) {
  const std::string sentence = row.string("sentence");
  const std::size_t gap = sentence.find('_');
  if (gap == sentence.npos) row.refuse("sentence", "must have a gap '_'");
  const Strings options{row.string("option1"), row.string("option2")};
  ChoiceRow result;
  for (const std::string& option : options) {
    const std::string context = sentence.substr(0, gap) + option;
    result.choices.push_back(
        {context, kDelimiter + stripped(sentence.substr(gap + 1)), context});
  }
  result.answer = answer_place(row, "answer", {options, {}, 1});
  return result;
}

ChoiceRow read_boolq(const JsonObject& row) {
  const Strings choices{"no", "yes"};
  ChoiceRow result = asked(
      row.string("passage") + "\nQuestion: " + row.string("question") +
          "?\nAnswer:",
      choices);
  result.answer =
      answer_place(row, row.has("label") ? "label" : "answer", {choices});
  return result;
}

ChoiceRow read_sciq(const JsonObject& row) {
  const Strings choices{
      row.string("distractor1"),
      row.string("distractor2"),
      row.string("distractor3"),
      row.string("correct_answer")};
  ChoiceRow result = asked(
      lstripped(row.string("support")) + "\n" +
          question_text(row.string("question")),
      choices);
  result.answer = choices.size() - 1;
  return result;
}

// A form and the keys that identify it; of several the first counts.
struct ChoiceForm {
  std::initializer_list<const char*> keys;
  ChoiceRow (*read)(const JsonObject& row);
};

const std::array<ChoiceForm, 11> kChoiceForms{{
    {{"context", "choices"}, read_own},
    {{"activity_label", "ctx_a", "ctx_b", "endings"}, read_hellaswag},
    {{"goal", "sol1", "sol2"}, read_piqa},
    {{"sentence", "option1", "option2"}, read_winogrande},
    {{"support", "question", "correct_answer"}, read_sciq},
    {{"passage", "question"}, read_boolq},
    {{"question_stem", "choices", "answerKey"}, read_openbook},
    {{"question_concept", "question", "choices"}, read_commonsense},
    {{"question", "choices", "answerKey"}, read_arc},
    {{"subject", "question", "choices"}, read_mmlu},
    {{"question", "choices"}, read_question},
}};

}  // namespace

ChoiceRow read_choice_row(const JsonObject& row) {
  for (const ChoiceForm& form : kChoiceForms) {
    if (!std::ranges::all_of(
            form.keys, [&](const char* key) { return row.has(key); })) {
      continue;
    }
    ChoiceRow result = form.read(row);
    if (result.choices.size() < 2) {
      row.refuse("choices", "must be two or more");
    }
    for (const Choice& choice : result.choices) {
      if (choice.text.empty()) row.refuse("choices", "hold an empty one");
    }
    return result;
  }
  Strings keys;
  for (const auto& [key, value] : row.json().items()) keys.push_back(key);
  throw UserError(
      "choices",
      row.subject(),
      fmt::format(
          "expected the keys context, choices and answer, or those of ARC, "
          "HellaSwag, MMLU, PIQA, WinoGrande, BoolQ, OpenBookQA, SciQ or "
          "CommonsenseQA; found {}",
          fmt::join(keys, ", ")));
}

}  // namespace fettle::text
