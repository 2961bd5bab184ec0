// SPDX-License-Identifier: Apache-2.0
#include "cli/quality.h"

#include <fmt/format.h>

#include <array>

#include "cli/table.h"

namespace fettle::cli {
namespace {

sweep::EvalResult scored(
    Session& session,
    const OpenModel& opened,
    model::CausalLm* teacher,
    const std::vector<sweep::EvalSet>& sets) {
  sweep::EvalOptions options;
  options.micro_batch_tokens = opened.plan.micro_batch_tokens;
  options.sweep = opened.plan.sweep_options(nullptr);
  return sweep::evaluate(
      *opened.model, teacher, sets, options, session.reporter());
}

Json joined(const sweep::EvalResult& before, const sweep::EvalResult& after) {
  Json files = Json::array();
  Json means = Json::object();
  for (const char* key : {"nll_before", "nll", "kl", "top1"}) means[key] = 0.0;
  const auto count = static_cast<double>(after.sets.size());
  for (std::size_t i = 0; i < after.sets.size(); ++i) {
    const sweep::EvalScore& set = after.sets[i];
    Json file{
        {"file", set.name},
        {"tokens", set.tokens},
        {"nll_before", before.sets[i].nll},
        {"nll", set.nll},
        {"kl", *set.kl},
        {"top1", *set.top1}};
    for (auto& [key, mean] : means.items()) {
      mean = mean.get<double>() + file[key].get<double>() / count;
    }
    files.push_back(std::move(file));
  }
  Json result{{"files", std::move(files)}};
  result.update(means);
  return result;
}

}  // namespace

std::vector<sweep::EvalSet> held_out(
    const Session& session,
    const model::ModelReader& reader,
    const HeldOutFiles& files) {
  if (files.names.empty()) return {};
  const auto tokenizer = text::Tokenizer::load(reader.folder());
  return sweep::load_sets(
             data_files(files.names),
             {tokenizer,
              session.sample_options(reader, files.flags),
              window_tokens(reader.config(), files.seq_len)})
      .sets;
}

Json measure_quality(Session& session, const QualityInput& input) {
  sweep::Workload workload;
  workload.takes_experts_apart = true;
  for (const sweep::EvalSet& set : input.sets) {
    workload.add(set.sequences, sweep::EvalOptions{}.chunk_tokens);
  }
  auto reader = std::make_unique<model::ModelReader>(input.after);
  sweep::Workload beside = workload;
  beside.add(session.least_plan(*reader, workload));
  const OpenModel before = session.open(input.before, beside);
  const auto first = scored(session, before, nullptr, input.sets);
  workload.add(before.plan);
  const OpenModel after = session.open(std::move(reader), workload);
  return joined(first, scored(session, after, before.model.get(), input.sets));
}

std::string quality_table(const Json& quality) {
  Table table({"held out", "tokens", "loss before", "after", "kl", "top-1"});
  const auto row = [&](const std::string& name, const Json& of) {
    const auto number = [&](const char* key) { return of[key].get<double>(); };
    table.add(
        {name,
         of.contains("tokens")
             ? fmt::format("{}", of["tokens"].get<std::int64_t>())
             : std::string(),
         fmt::format("{:.4f}", number("nll_before")),
         fmt::format("{:.4f}", number("nll")),
         fmt::format("{:.4f}", number("kl")),
         fmt::format("{:.1f} %", 100 * number("top1"))});
  };
  for (const Json& file : quality["files"]) {
    row(file["file"].get<std::string>(), file);
  }
  if (quality["files"].size() > 1) row("all", quality);
  return table.text();
}

}  // namespace fettle::cli
