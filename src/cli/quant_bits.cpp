// SPDX-License-Identifier: Apache-2.0
#include "cli/quant_bits.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "artifact/row_prices.h"
#include "artifact/shard_set.h"
#include "cli/table.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/size_option.h"
#include "io/checksum.h"
#include "io/durable.h"

namespace fettle::cli {
namespace {

quant::MeasureOptions measure_options(
    const BitsRun& run, const std::optional<artifact::RowPrices>& prices) {
  quant::MeasureOptions options;
  if (prices) options.prices = &*prices;
  options.gptq = run.flags.gptq();
  options.moment_bytes = run.moment_bytes;
  options.reporter = &run.reporter;
  const auto candidates = run.flags.candidate_schemes();
  const auto parts = run.flags.allocated_parts();
  const quant::Schemes schemes = run.flags.schemes();
  options.candidates = [=](const model::WeightId& id) {
    const quant::Part part = *quant::part_of(id.role);
    if (std::ranges::find(parts, part) != parts.end()) return candidates;
    return std::vector{schemes.at(part)};
  };
  options.identity = run.identity;
  for (const auto& [part, scheme] : schemes) {
    const bool chosen = std::ranges::find(parts, part) != parts.end();
    options.identity["candidates"][std::string(quant::part_name(part))] =
        chosen ? fmt::format("{}", fmt::join(run.flags.candidates, ","))
               : quant::scheme_name(scheme);
  }
  if (prices) {
    options.identity["prices"] = io::hash_file(
        std::filesystem::path(run.flags.prices) / artifact::kRowPricesFile);
  }
  return options;
}

std::optional<artifact::RowPrices> prices_of(
    const QuantFlags& flags, const model::ModelReader& reader) {
  if (flags.prices.empty()) return {};
  return artifact::RowPrices::load(
      flags.prices, reader.config(), reader.fingerprint());
}

std::int64_t budget_of(const QuantFlags& flags, const quant::ChoiceSize& size) {
  if (!flags.budget.empty()) return parse_size(flags.budget, "--budget");
  const double bytes =
      *flags.mean_bits() / 8 * static_cast<double>(size.weights);
  return size.fixed_bytes + static_cast<std::int64_t>(std::floor(bytes));
}

// What was measured outlives a refusal.
quant::BitPlan planned(
    const model::ModelReader& reader,
    const quant::QuantErrors& errors,
    std::int64_t budget) {
  try {
    return quant::plan_bits(reader, errors, budget);
  } catch (const UserError& error) {
    const std::string text = error.what();  // "[quant] budget: …"
    throw UserError(
        "quant",
        "budget",
        text.substr(text.find(": ") + 2) +
            "; what was measured is kept: run again with --resume and another "
            "budget");
  }
}

}  // namespace

quant::BitPlan plan_within_budget(
    const BitsRun& run,
    const model::ModelReader& reader,
    quant::Calibrated* data,
    const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / artifact::kMeasuredErrors;
  if (!run.flags.errors.empty() && !std::filesystem::exists(file)) {
    io::replace_file(file, read_json(run.flags.errors, "quant").dump() + "\n");
  }
  const std::optional<artifact::RowPrices> prices =
      prices_of(run.flags, reader);
  const quant::QuantErrors errors =
      quant::measure_errors(reader, measure_options(run, prices), data, file);
  const std::int64_t budget =
      budget_of(run.flags, quant::choice_size(reader, errors));
  quant::BitPlan plan = planned(reader, errors, budget);
  plan.plan.options = errors.identity;
  plan.plan.options["budget"] = budget;
  plan.plan.save(folder / "quant_plan.json");
  return plan;
}

std::string bit_plan_text(const quant::BitPlan& plan) {
  return fmt::format(
      "{} in the plan; {}\n",
      format_bytes(plan.bytes),
      plan.allocation.gap == 0
          ? std::string("optimal for this size")
          : fmt::format(
                "another may lose {:.2g} % less",
                100 * plan.allocation.gap / plan.allocation.error));
}

Json bit_plan_json(const quant::BitPlan& plan) {
  return {
      {"bytes", plan.bytes},
      {"error", plan.allocation.error},
      {"gap", plan.allocation.gap},
      {"states", plan.allocation.states}};
}

}  // namespace fettle::cli
