// SPDX-License-Identifier: Apache-2.0
#include "chain/fit_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "artifact/report_parts.h"
#include "core/bytes.h"
#include "io/file.h"

namespace fettle {

extern const std::string_view fit_page_html;

namespace chain {
namespace {

namespace mustache = kainjow::mustache;

std::string row_name(const FitRow& row) {
  return fmt::format("{:g} % as {}", 100 * row.cut.keep, row.cut.scheme.label);
}

std::string page_verdict(const FitRow& row) {
  switch (row.fits) {
    case Fits::kYes:
      return format_bytes(row.left) + " left";
    case Fits::kSplit:
      return fmt::format(
          "with the experts of {} layers in RAM", row.moved_layers);
    case Fits::kStreams:
      return fmt::format(
          "runs, and reads {} anew for each token",
          format_bytes(row.read_bytes));
    case Fits::kNo:
      return format_bytes(-row.left) + " over";
  }
  return "";
}

Json gibibytes(std::int64_t bytes) {
  return static_cast<double>(bytes) / static_cast<double>(1 << 30);
}

void add_bars(
    Json& parts,
    std::string_view name,
    const FitTable& table,
    const std::function<std::int64_t(const Footprint&)>& bytes) {
  Json list = Json::array();
  bool any = false;
  for (const FitRow& row : table.rows) {
    any = any || bytes(row.footprint) > 0;
    list.push_back(gibibytes(bytes(row.footprint)));
  }
  if (any) parts.push_back({{"name", name}, {"bytes", std::move(list)}});
}

mustache::data row_view(const FitRow& row, const FitTable& table) {
  const Footprint& f = row.footprint;
  mustache::data view;
  view["name"] = row_name(row);
  view["width"] = std::to_string(row.width);
  view["weights"] = format_bytes(f.weights.total());
  view["state"] = format_bytes(f.state);
  view["work"] = format_bytes(f.working + f.runtime);
  view["total"] = format_bytes(f.total);
  view["ram"] = format_bytes(f.ram);
  view["disk"] = format_bytes(f.file);
  const bool bounded = table.request.bounds.any();
  view["verdict"] = bounded ? page_verdict(row) : std::string();
  view["context"] = bounded && row.longest_context > 0
                        ? std::to_string(row.longest_context)
                        : std::string();
  return view;
}

mustache::data list_view(const std::vector<std::string>& texts) {
  mustache::data list{mustache::data::type::list};
  for (const std::string& text : texts) {
    mustache::data one;
    one["text"] = text;
    list.push_back(one);
  }
  return list;
}

}  // namespace

Json fit_page_data(const FitTable& table) {
  Json names = Json::array();
  for (const FitRow& row : table.rows) names.push_back(row_name(row));
  Json parts = Json::array();
  for (std::size_t p = 0; p < kFitParts; ++p) {
    const auto part = static_cast<FitPart>(p);
    add_bars(parts, fit_part_name(part), table, [part](const Footprint& f) {
      return f.weights[part];
    });
  }
  add_bars(parts, "conversations", table, [](const Footprint& f) {
    return f.state;
  });
  add_bars(parts, "work", table, [](const Footprint& f) { return f.working; });
  add_bars(parts, "program and libraries", table, [](const Footprint& f) {
    return f.runtime;
  });
  const Bounds& bounds = table.request.bounds;
  const auto bound = table.request.on_card() ? bounds.vram : bounds.ram;
  return {
      {"rows", std::move(names)},
      {"parts", std::move(parts)},
      {"bound", bound ? gibibytes(*bound) : Json()}};
}

void write_fit_page(const std::filesystem::path& file, const FitPage& page) {
  const FitTable& table = page.table;
  const Engine& engine = find_engine(table.request.engine);
  mustache::data rows{mustache::data::type::list};
  for (const FitRow& row : table.rows) rows.push_back(row_view(row, table));
  std::vector<std::string> assumed = page.source.assumed();
  for (const RefusedScheme& one : table.refused) {
    assumed.push_back(fmt::format("no {}: {}", one.label, one.why));
  }
  mustache::data view;
  view["title"] = page.source.name();
  view["engine"] = std::string(engine.name);
  view["basis"] = std::string(engine.source);
  view["context"] = std::to_string(table.request.context);
  view["parallel"] = std::to_string(table.request.parallel);
  view["several"] = table.request.parallel > 1;
  view["card"] = table.request.on_card();
  view["bounded"] = table.request.bounds.any();
  view["least"] = format_bytes(table.smallest.footprint.total);
  view["least_row"] = row_name(table.smallest);
  view["rows"] = std::move(rows);
  view["exact"] = list_view(page.source.exact());
  view["assumed"] = list_view(assumed);
  io::write_file(
      file,
      artifact::render_page(
          {fit_page_html,
           std::move(view),
           fit_page_data(table),
           page.making,
           nullptr}));
}

}  // namespace chain
}  // namespace fettle
