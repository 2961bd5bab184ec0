// SPDX-License-Identifier: Apache-2.0
#include "cli/run_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/shell_text.h"
#include "core/bytes.h"

namespace fettle::cli {
namespace {

double number_at(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<double>() : -1;
}

std::string bytes_cell(const Json& result, const char* key) {
  const double bytes = number_at(result, key);
  return bytes < 0 ? "" : format_bytes(static_cast<std::int64_t>(bytes));
}

std::string number_cell(const Json& json, const char* key, int digits) {
  if (!json.is_object()) return "";
  const double number = number_at(json, key);
  return number < 0 ? "" : fmt::format("{:.{}f}", number, digits);
}

const char* what_happens(
    const ChainStep& step,
    const RunRecord& record,
    const std::string& loss_key) {
  if (record.is_begun(step)) return "goes on with --resume, else runs";
  if (!record.is_whole(step)) return "runs";
  const bool unmeasured = step.makes_model && !loss_key.empty() &&
                          record.loss(step, loss_key).is_null();
  return unmeasured ? "is whole: measured anew" : "is whole: skipped";
}

}  // namespace

RunTable::RunTable()
    : table_({"stage", "size", "mean nll", "seconds", "peak RAM", ""}) {}

void RunTable::add(
    const std::string& step,
    const Json& result,
    const Json& loss,
    bool skipped) {
  const bool is_eval = result.contains("mean_nll");
  table_.add(
      {step,
       bytes_cell(result, "bytes"),
       number_cell(is_eval ? result : loss, "mean_nll", 4),
       number_cell(result, "seconds", 1),
       bytes_cell(result, "peak_ram_bytes"),
       skipped ? "skipped" : ""});
  Json row = result;
  row.erase("text");
  row["stage"] = step;
  row["skipped"] = skipped;
  if (!loss.is_null()) row["eval"] = loss;
  stages_.push_back(std::move(row));
}

DryRun dry_run(
    const std::vector<ChainStep>& steps,
    const RunRecord& record,
    const std::string& loss_key) {
  DryRun run;
  std::size_t width = 0;
  for (const auto& step : steps) width = std::max(width, step.name.size());
  for (const auto& step : steps) {
    const char* would = what_happens(step, record, loss_key);
    std::vector<std::string> words{"fettle", step.command};
    words.insert(words.end(), step.arguments.begin(), step.arguments.end());
    run.text += fmt::format(
        "{:<{}}  {}\n    {}\n",
        step.name,
        width,
        would,
        command_text(words, 4));
    run.stages.push_back(
        {{"stage", step.name},
         {"would", would},
         {"out", step.out.string()},
         {"command", words}});
  }
  return run;
}

}  // namespace fettle::cli
