// SPDX-License-Identifier: Apache-2.0
#include "cli/fit/result.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/table.h"
#include "core/bytes.h"

namespace fettle::cli {
namespace {

Json plan_json(const chain::FitPlan& plan, const FitResult& result) {
  Json domains = Json::object();
  for (const chain::Domain& domain : result.domains) {
    domains[domain.name] = domain.nats(plan);
  }
  return {
      {"domains", std::move(domains)},
      {"bytes", plan.bytes},
      {"nats", plan.nats()},
      {"cut_nats", plan.cut_nats},
      {"round_nats", plan.round_nats},
      {"kept", plan.kept},
      {"products", plan.products}};
}

void add_row(
    Table& table, const std::string& name, const chain::FitPlan& plan) {
  table.add(
      {name,
       format_bytes(plan.bytes),
       fmt::format("{:.4f}", plan.nats()),
       fmt::format("{:.4f}", plan.cut_nats),
       fmt::format("{:.4f}", plan.round_nats),
       fmt::format("{:.0f} %", 100 * plan.kept),
       fmt::format("{:.0f} %", 100 * plan.products)});
}

// What the prices were calibrated by.
std::string calibration_text(const FitResult& result) {
  const chain::Calibration& c = result.calibration;
  std::string text = fmt::format(
      "calibration: cuts {:.2f}, rounding {:.2f}, growth {:.2f}, curve {:.2f}",
      c.cut,
      c.round,
      c.growth,
      c.curve);
  if (result.probes.points.empty()) {
    return text + ", not measured on this model\n";
  }
  text += ", by points measured on " + result.probes.text + "\n";
  Table table({"calibrated by", "weights", "measured KL", "expected KL"});
  for (const MeasuredProbe& point : result.probes.points) {
    table.add(
        {point.name,
         format_bytes(point.plan.bytes),
         fmt::format("{:.4f}", point.kl),
         fmt::format("{:.4f}", point.plan.nats())});
  }
  return text + table.text();
}

// What the chosen plan, and plain ones of no more bytes, cost in each domain.
std::string domains_text(const FitResult& result) {
  if (result.domains.empty()) return {};
  std::vector<std::string> header{"expected KL in"};
  for (const chain::Domain& domain : result.domains) {
    header.push_back(domain.name);
  }
  Table table(std::move(header));
  const auto add = [&](std::string name, const chain::FitPlan& plan) {
    std::vector<std::string> row{std::move(name)};
    for (const chain::Domain& domain : result.domains) {
      row.push_back(fmt::format("{:.4f}", domain.nats(plan)));
    }
    table.add(std::move(row));
  };
  add("chosen", result.chosen);
  for (const auto& [choice, plan] : result.plain) {
    if (plan.bytes <= result.budget) add(choice.name(), plan);
  }
  return "\n" + table.text();
}

// Of the domain that the file is named by; empty where it is of none.
std::string expected_in(const FitResult& result, const std::string& file) {
  const auto found = std::ranges::find(
      result.domains, chain::domain_name(file), &chain::Domain::name);
  if (found == result.domains.end()) return {};
  return fmt::format("{:.4f}", found->nats(result.chosen));
}

// Predicted beside measured, by file.
std::string measured_text(const FitResult& result) {
  if (result.measured.is_null()) return {};
  const Json& files = result.measured.at("files");
  Table table({"held-out file", "measured KL", "expected KL"});
  double sum = 0;
  for (const Json& file : files) {
    const double kl = file.at("kl").get<double>();
    sum += kl;
    const auto name = file.at("file").get<std::string>();
    table.add({name, fmt::format("{:.4f}", kl), expected_in(result, name)});
  }
  table.add(
      {"mean",
       fmt::format("{:.4f}", sum / static_cast<double>(files.size())),
       fmt::format("{:.4f}", result.chosen.nats())});
  return "\n" + table.text();
}

std::string memory_text(const FitResult& result) {
  const chain::Footprint& f = result.footprint;
  if (f.total == 0) return {};
  std::string text = fmt::format(
      "\nmemory: {} of weights, {} of conversations, {} of work, {} of program "
      "and libraries; {} in all",
      format_bytes(f.weights.total()),
      format_bytes(f.state),
      format_bytes(f.working),
      format_bytes(f.runtime),
      format_bytes(f.total));
  if (result.memory.contains("failed")) {
    text += "; a run with it failed: " +
            result.memory.at("failed").get<std::string>();
  } else if (!result.memory.is_null()) {
    text += fmt::format(
        "; a run took {}",
        format_bytes(result.memory.at("measured_bytes").get<std::int64_t>()));
  }
  return text + "\n";
}

}  // namespace

Json FitResult::to_json() const {
  Json json{
      {"budget", budget},
      {"chosen", plan_json(chosen, *this)},
      {"chosen_cost", chosen_cost},
      {"calibration", calibration.to_json()},
      {"frontier", Json::array()},
      {"plain", Json::array()},
      {"probes", Json::array()}};
  json["calibration"]["text"] = probes.text;
  for (const chain::FitPlan& plan : frontier) {
    json["frontier"].push_back(plan_json(plan, *this));
  }
  for (const auto& [choice, plan] : plain) {
    Json row = plan_json(plan, *this);
    row["name"] = choice.name();
    row["keep"] = choice.keep;
    row["scheme"] = quant::scheme_name(choice.scheme);
    json["plain"].push_back(std::move(row));
  }
  for (const MeasuredProbe& point : probes.points) {
    Json row = plan_json(point.plan, *this);
    row["name"] = point.name;
    row["measured"] = point.kl;
    json["probes"].push_back(std::move(row));
  }
  Json parts = Json::object();
  for (std::size_t p = 0; p < chain::kFitParts; ++p) {
    const auto part = static_cast<chain::FitPart>(p);
    parts[std::string(chain::fit_part_name(part))] = footprint.weights[part];
  }
  json["promised"] = {
      {"weights", std::move(parts)},
      {"state_bytes", footprint.state},
      {"working_bytes", footprint.working},
      {"runtime_bytes", footprint.runtime},
      {"total_bytes", footprint.total},
      {"ram_bytes", footprint.ram},
      {"file_bytes", footprint.file}};
  if (!model.empty()) json["model"] = model;
  if (!exported.empty()) json["exported"] = exported;
  if (!stages.is_null()) json["stages"] = stages;
  if (!measured.is_null()) json["measured"] = measured;
  if (!memory.is_null()) json["memory"] = memory;
  return json;
}

std::string FitResult::text() const {
  Table table(
      {"plan",
       "weights",
       "expected KL",
       "by cuts",
       "by rounding",
       "neurons",
       "products"});
  add_row(table, "chosen", chosen);
  for (const chain::FitPlan& plan : frontier) add_row(table, "frontier", plan);
  for (const auto& [choice, plan] : plain) {
    if (plan.bytes <= budget) add_row(table, choice.name(), plan);
  }
  return table.text() + domains_text(*this) + "\n" + calibration_text(*this) +
         memory_text(*this) + measured_text(*this);
}

}  // namespace fettle::cli
