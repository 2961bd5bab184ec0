// SPDX-License-Identifier: Apache-2.0
#include "cli/data_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "cli/table.h"
#include "core/error.h"

namespace fettle::cli {
namespace {

using Counts = std::vector<text::SourceCounts>;

// A sample that is seen more often than this is learned by heart.
constexpr double kManyEpochs = 10.0;
constexpr double kUsualEpochs = 3.0;

// "262,144".
std::string counted(std::int64_t number) {
  std::string text = fmt::format("{}", number);
  for (auto at = static_cast<std::int64_t>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(static_cast<std::size_t>(at), ",");
  }
  return text;
}

std::string samples_text(std::int64_t number) {
  return number == 1 ? "1 sample" : counted(number) + " samples";
}

double percent(std::int64_t part, std::int64_t whole) {
  return whole == 0
             ? 0.0
             : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

std::int64_t total(
    const Counts& counts, std::int64_t text::SourceCounts::*field) {
  std::int64_t sum = 0;
  for (const auto& count : counts) sum += count.*field;
  return sum;
}

// What was cut and left out of one file.
std::string remarks(const text::SourceCounts& file, const DataUse& use) {
  std::string text;
  const std::string verb = use.draws ? "train on" : "score";
  if (file.ended > 0) {
    text += fmt::format(
        "{}: {} of text end in the model's end token (--append-eos no leaves "
        "it out)\n",
        file.name,
        samples_text(file.ended));
  }
  if (use.draws && file.cut > 0) {
    text += fmt::format(
        "{}: {} of {} longer than --seq-len {}: their ends are cut off, {} of "
        "{} {} tokens ({:.0f} %)\n",
        file.name,
        counted(file.cut),
        samples_text(file.samples),
        use.seq_len,
        counted(file.lost),
        counted(file.lost + file.scored),
        use.scored,
        percent(file.lost, file.lost + file.scored));
  }
  if (file.skipped > 0) {
    text += fmt::format(
        "{}: {} with nothing to {}: skipped{}\n",
        file.name,
        samples_text(file.skipped),
        verb,
        file.skipped_long == 0
            ? ""
            : fmt::format(
                  " ({} because what counts begins beyond --seq-len {})",
                  counted(file.skipped_long),
                  use.seq_len));
  }
  if (file.skipped_windows > 0) {
    text += fmt::format(
        "{}: {} windows of {} tokens with nothing to {}: skipped\n",
        file.name,
        counted(file.skipped_windows),
        use.seq_len,
        verb);
  }
  return text;
}

std::string scarcity(
    const Counts& counts,
    const DataUse& use,
    const std::vector<double>& epochs) {
  const std::int64_t held = total(counts, &text::SourceCounts::tokens);
  if (!use.draws) {
    if (use.wanted == 0 || 2 * held >= use.wanted) return "";
    return fmt::format(
        "{} tokens are asked for, the data has {}: all of it is used\n",
        counted(use.wanted),
        counted(held));
  }
  std::string text;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (epochs[i] <= kManyEpochs) continue;
    text += fmt::format(
        "{}: the run reads it {:.0f} times; {:.0f} would be {} % of its "
        "steps\n",
        counts[i].name,
        epochs[i],
        kUsualEpochs,
        std::max(1.0, std::round(100.0 * kUsualEpochs / epochs[i])));
  }
  return text;
}

}  // namespace

text::RowForm DataFlags::row_form() const {
  if (!columns.empty() && !form.empty()) {
    throw UsageError(
        "data", "--form", "has no place beside --columns; give one of them");
  }
  return {text::parse_named_form(form), text::parse_columns(columns)};
}

void add_data_flags(CLI::App& app, DataFlags& flags) {
  app.add_option(
      "--columns",
      flags.columns,
      "Columns of the data that stand for text, messages, prompt, completion: "
      "prompt=question,completion=answer; prompt=instruction+input joins two");
  app.add_option(
      "--form",
      flags.form,
      "Form of the data: sharegpt (conversations of from and value) or alpaca "
      "(instruction, input, output), read as conversations");
}

std::vector<double> epochs_of(const Counts& counts, const DataUse& use) {
  // Samples are drawn by weight; tokens follow from their mean lengths.
  double tokens_a_round = 0.0;
  for (const auto& file : counts) {
    tokens_a_round += file.weight * static_cast<double>(file.tokens) /
                      static_cast<double>(file.samples);
  }
  std::vector<double> epochs;
  for (const auto& file : counts) {
    epochs.push_back(
        static_cast<double>(use.used) / tokens_a_round * file.weight /
        static_cast<double>(file.samples));
  }
  return epochs;
}

std::string data_text(const Counts& counts, const DataUse& use) {
  const std::vector<double> epochs =
      use.draws ? epochs_of(counts, use) : std::vector<double>();
  std::vector<std::string> header{"data", "samples", "tokens", use.scored};
  if (use.draws) header.emplace_back("epochs");
  Table table(header);
  std::string below;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto& file = counts[i];
    std::vector<std::string> row{
        file.name,
        counted(file.samples),
        counted(file.tokens),
        counted(file.scored)};
    if (use.draws) row.push_back(fmt::format("{:.2f}", epochs[i]));
    table.add(row);
    below += remarks(file, use);
  }
  if (!use.draws && use.wanted > 0) {
    below += fmt::format("{} tokens of it are used\n", counted(use.used));
  }
  below += scarcity(counts, use, epochs);
  std::string text = table.text() + below;
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

Json data_json(const Counts& counts, const DataUse& use) {
  const std::vector<double> epochs =
      use.draws ? epochs_of(counts, use) : std::vector<double>();
  Json files = Json::array();
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto& file = counts[i];
    files.push_back(
        {{"file", file.name},
         {"weight", file.weight},
         {"samples", file.samples},
         {"tokens", file.tokens},
         {use.scored, file.scored},
         {"cut", file.cut},
         {"lost", file.lost},
         {"skipped", file.skipped},
         {"skipped_windows", file.skipped_windows}});
    if (use.draws) files.back()["epochs"] = epochs[i];
  }
  return {{"files", std::move(files)}, {"tokens_used", use.used}};
}

Json data_names(const std::vector<std::string>& data) {
  Json names = Json::array();
  for (const std::string& item : data) {
    std::istringstream files(item);
    for (std::string file; std::getline(files, file, ',');) {
      while (file.size() > 1 && file.ends_with('/')) file.pop_back();
      names.push_back(file.substr(file.rfind('/') + 1));
    }
  }
  return names;
}

}  // namespace fettle::cli
