// SPDX-License-Identifier: Apache-2.0
#include "cli/eval_text.h"

#include <fmt/format.h>

#include "cli/table.h"

namespace fettle::cli {

namespace {

Json score_json(const sweep::EvalScore& set) {
  Json json{
      {"tokens", set.tokens}, {"nll", set.nll}, {"perplexity", set.perplexity}};
  if (set.kl) json["kl"] = *set.kl;
  if (set.top1) json["top1"] = *set.top1;
  return json;
}

}  // namespace

Json eval_json(const sweep::EvalResult& result) {
  Json files = Json::array();
  for (const auto& set : result.sets) {
    files.push_back(score_json(set));
    files.back()["file"] = set.name;
  }
  return {
      {"files", files},
      {"all", score_json(sweep::over_all(result.sets))},
      {"mean_nll", mean_nll(result)},
      {"tokens_per_second", result.tokens_per_second}};
}

std::string eval_table(const sweep::EvalResult& result) {
  const bool taught = result.sets.front().kl.has_value();
  std::vector<std::string> header{"file", "tokens", "nll", "perplexity"};
  if (taught) header.insert(header.end(), {"kl", "top-1"});
  Table table(header);
  const auto add = [&](const sweep::EvalScore& set) {
    std::vector<std::string> row{
        set.name,
        fmt::format("{}", set.tokens),
        fmt::format("{:.4f}", set.nll),
        fmt::format("{:.3f}", set.perplexity)};
    if (taught) {
      row.push_back(fmt::format("{:.4f}", *set.kl));
      row.push_back(fmt::format("{:.1f} %", 100 * *set.top1));
    }
    table.add(std::move(row));
  };
  for (const auto& set : result.sets) add(set);
  if (result.sets.size() > 1) add(sweep::over_all(result.sets));
  return table.text() +
         fmt::format("{:.0f} tokens/s\n", result.tokens_per_second);
}

double mean_nll(const sweep::EvalResult& result) {
  double sum = 0;
  for (const auto& set : result.sets) sum += set.nll;
  return sum / static_cast<double>(result.sets.size());
}

}  // namespace fettle::cli
