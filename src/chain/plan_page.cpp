// SPDX-License-Identifier: Apache-2.0
#include "chain/plan_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string_view>

#include "artifact/report_parts.h"
#include "core/bytes.h"
#include "io/file.h"

namespace fettle {

extern const std::string_view plan_page_html;

namespace chain {
namespace {

namespace mustache = kainjow::mustache;

double mebibytes(std::int64_t bytes) {
  return static_cast<double>(bytes) / static_cast<double>(1 << 20);
}

Json place(std::int64_t bytes, double nats) {
  return {{"x", mebibytes(bytes)}, {"y", nats}};
}

double bits_of(const quant::Scheme& scheme) {
  constexpr double kStored = 16;
  constexpr double kTrit = 1.6;
  if (scheme.keep) return kStored;
  return scheme.kind == kernels::PackedKind::kTernary
             ? kTrit
             : static_cast<double>(scheme.bits);
}

// Of a layer's experts.
struct LayerSums {
  double neurons = 0, kept = 0, narrowest = 1, widest = 0;
  double gate_up = 0, down = 0, lost = 0;

  void add(const PriceTable& table, const FitPlan& plan, std::size_t e) {
    const ExpertPrice& expert = table.experts[e];
    const ExpertChoice& choice = plan.experts[e];
    const auto all = static_cast<double>(expert.width());
    const auto own = static_cast<double>(choice.width);
    if (all <= 0) return;
    neurons += all;
    kept += own;
    narrowest = std::min(narrowest, own / all);
    widest = std::max(widest, own / all);
    gate_up += own * bits_of(choice.gate_up);
    down += own * bits_of(choice.down);
    lost += cut_nats(table, expert, choice.width) +
            rounding_nats(table, expert, choice);
  }

  Json to_json(std::int64_t layer) const {
    return {
        {"layer", layer},
        {"mean", kept / neurons},
        {"least", narrowest},
        {"most", widest},
        {"gate_up", kept > 0 ? gate_up / kept : 0},
        {"down", kept > 0 ? down / kept : 0},
        {"nats", lost}};
  }
};

Json layers_of(const PlanPage& page) {
  std::map<std::int64_t, LayerSums> layers;
  for (std::size_t e = 0; e < page.table.experts.size(); ++e) {
    layers[page.table.experts[e].layer].add(page.table, page.chosen, e);
  }
  Json list = Json::array();
  for (const auto& [layer, sums] : layers) {
    if (sums.neurons > 0) list.push_back(sums.to_json(layer));
  }
  return list;
}

Json parts_of(const Footprint& f) {
  Json parts = Json::array();
  const auto add = [&](std::string_view name, std::int64_t bytes) {
    if (bytes == 0) return;
    parts.push_back({{"name", name}, {"mib", mebibytes(bytes)}});
  };
  for (std::size_t p = 0; p < kFitParts; ++p) {
    const auto part = static_cast<FitPart>(p);
    add(fit_part_name(part), f.weights[part]);
  }
  add("conversations", f.state);
  add("work", f.working);
  add("program and libraries", f.runtime);
  return parts;
}

double mean_measured(const PlanPage& page) {
  double sum = 0;
  for (const auto& [file, kl] : page.measured) sum += kl;
  return sum / static_cast<double>(page.measured.size());
}

std::string nats_text(double nats) { return fmt::format("{:.4f}", nats); }

mustache::data row_of(
    const std::string& name,
    const FitPlan& plan,
    const std::vector<Domain>& domains) {
  mustache::data row;
  row["name"] = name;
  row["bytes"] = format_bytes(plan.bytes);
  row["nats"] = nats_text(plan.nats());
  row["cut"] = nats_text(plan.cut_nats);
  row["round"] = nats_text(plan.round_nats);
  row["kept"] = fmt::format("{:.0f} %", 100 * plan.kept);
  row["products"] = fmt::format("{:.0f} %", 100 * plan.products);
  mustache::data parts{mustache::data::type::list};
  for (const Domain& domain : domains) {
    mustache::data part;
    part["nats"] = nats_text(domain.nats(plan));
    parts.push_back(part);
  }
  row["parts"] = std::move(parts);
  return row;
}

// The chosen plan, and plain ones of no more bytes, the best first.
mustache::data rows_of(const PlanPage& page) {
  std::vector<const std::pair<PlainChoice, FitPlan>*> within;
  for (const auto& one : page.plain) {
    if (one.second.bytes <= page.budget) within.push_back(&one);
  }
  std::ranges::stable_sort(
      within, {}, [](const auto* one) { return one->second.nats(); });
  mustache::data rows{mustache::data::type::list};
  rows.push_back(row_of("the plan", page.chosen, page.domains));
  for (const auto* one : within) {
    rows.push_back(row_of(one->first.name(), one->second, page.domains));
  }
  return rows;
}

mustache::data files_of(const PlanPage& page) {
  mustache::data rows{mustache::data::type::list};
  for (const auto& [file, kl] : page.measured) {
    const auto domain =
        std::ranges::find(page.domains, domain_name(file), &Domain::name);
    mustache::data row;
    row["expected"] = domain == page.domains.end()
                          ? std::string()
                          : nats_text(domain->nats(page.chosen));
    row["name"] = std::filesystem::path(file).stem().string();
    row["measured"] = nats_text(kl);
    rows.push_back(row);
  }
  return rows;
}

mustache::data view_of(const PlanPage& page) {
  const Calibration& c = page.table.calibration;
  mustache::data view;
  view["title"] = page.model;
  view["engine"] = std::string(page.engine.name);
  view["bytes"] = format_bytes(page.chosen.bytes);
  view["nats"] = nats_text(page.chosen.nats());
  view["rows"] = rows_of(page);
  view["by_domain"] = !page.domains.empty();
  mustache::data domains{mustache::data::type::list};
  for (const Domain& domain : page.domains) {
    mustache::data one;
    one["domain"] = domain.name;
    domains.push_back(one);
  }
  view["domains"] = std::move(domains);
  view["done"] = !page.measured.empty();
  if (!page.measured.empty()) {
    view["files"] = files_of(page);
    view["mean"] = nats_text(mean_measured(page));
  }
  view["promised"] = format_bytes(page.footprint.total);
  view["ran"] = page.peak_bytes.has_value();
  if (page.peak_bytes) view["peak"] = format_bytes(*page.peak_bytes);
  view["calibration"] = fmt::format(
      "cuts {:.2f}, rounding {:.2f}, growth {:.2f}, curve {:.2f}",
      c.cut,
      c.round,
      c.growth,
      c.curve);
  view["probed"] = !page.probes.empty();
  return view;
}

}  // namespace

Json plan_page_data(const PlanPage& page) {
  Json frontier = Json::array();
  for (const FitPlan& plan : page.frontier) {
    frontier.push_back(place(plan.bytes, plan.nats()));
  }
  Json plain = Json::array();
  for (const auto& [choice, plan] : page.plain) {
    plain.push_back(place(plan.bytes, plan.nats()));
    plain.back()["name"] = choice.name();
  }
  Json probes = Json::array();
  for (const auto& [plan, kl] : page.probes) {
    probes.push_back(place(plan->bytes, kl));
  }
  Json finished = Json::array();
  if (!page.measured.empty()) {
    finished.push_back(place(page.chosen.bytes, mean_measured(page)));
  }
  return {
      {"frontier", std::move(frontier)},
      {"plain", std::move(plain)},
      {"probes", std::move(probes)},
      {"chosen", Json::array({place(page.chosen.bytes, page.chosen.nats())})},
      {"finished", std::move(finished)},
      {"layers", layers_of(page)},
      {"parts", parts_of(page.footprint)}};
}

void write_plan_page(const std::filesystem::path& file, const PlanPage& page) {
  io::write_file(
      file,
      artifact::render_page(
          {plan_page_html,
           view_of(page),
           plan_page_data(page),
           page.making,
           nullptr}));
}

}  // namespace chain
}  // namespace fettle
