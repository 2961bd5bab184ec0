// SPDX-License-Identifier: Apache-2.0
#include "cli/fit/text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "cli/shell_text.h"
#include "cli/table.h"
#include "core/bytes.h"

namespace fettle::cli {
namespace {

using chain::FitPart;
using chain::FitRow;
using chain::Fits;
using chain::FitTable;

std::string billions(std::int64_t parameters) {
  const auto count = static_cast<double>(parameters);
  if (count >= 1e9) return fmt::format("{:.3g} billion", count / 1e9);
  return fmt::format("{:.3g} million", count / 1e6);
}

std::string model_text(const chain::FitSource& source) {
  const model::ModelConfig& config = source.config();
  std::int64_t sparse = 0;
  std::int64_t experts = 0;
  for (const model::LayerConfig& layer : config.layers) {
    if (!layer.sparse) continue;
    ++sparse;
    experts = std::max(experts, layer.num_experts());
  }
  return wrapped(
             fmt::format(
                 "{} ({}): {} parameters, {} on a token, {} layers, {} with {} "
                 "experts",
                 source.name(),
                 config.family,
                 billions(config.parameters()),
                 billions(config.active_parameters()),
                 config.num_layers(),
                 sparse,
                 experts),
             2,
             0) +
         "\n";
}

std::string place_text(const chain::FitRequest& request) {
  std::vector<std::string> bounds;
  const auto add = [&](std::string_view before,
                       const std::optional<std::int64_t>& bytes,
                       std::string_view after) {
    if (!bytes) return;
    bounds.push_back(
        fmt::format("{}{}{}", before, format_bytes(*bytes), after));
  };
  add("a card of ", request.bounds.vram, "");
  add("", request.bounds.ram, " of RAM");
  add("", request.bounds.disk, " of disk");
  add("", request.bounds.weights, " of weights");
  if (bounds.empty()) {
    bounds.emplace_back(request.on_card() ? "a card" : "a CPU");
  }
  return fmt::format("{}", fmt::join(bounds, ", "));
}

std::string bounds_text(const chain::FitRequest& request) {
  const std::string text = fmt::format(
      "for {} on {}: {} of {} tokens",
      request.engine,
      place_text(request),
      request.parallel == 1 ? std::string("a conversation")
                            : fmt::format("{} conversations", request.parallel),
      request.context);
  return wrapped(text, 2, 0) + "\n\n";
}

std::string verdict(const FitRow& row) {
  switch (row.fits) {
    case Fits::kYes:
      return format_bytes(row.left) + " left";
    case Fits::kSplit:
      return fmt::format(
          "{} layer{} out", row.moved_layers, row.moved_layers == 1 ? "" : "s");
    case Fits::kStreams:
      return fmt::format("reads {}", format_bytes(row.read_bytes));
    case Fits::kNo:
      return format_bytes(-row.left) + " over";
  }
  return "";
}

// A line a candidate, in kTextWidth columns.
std::string table_text(const FitTable& table) {
  const bool bounded = table.request.bounds.any();
  std::vector<std::string> header{
      "kept", "as", "experts", "other", "state", "work", "in all", "disk"};
  if (bounded) {
    header.emplace_back("fits");
    header.emplace_back("tokens");
  }
  Table text(header);
  for (const FitRow& row : table.rows) {
    const chain::Footprint& f = row.footprint;
    const std::int64_t experts = f.weights[FitPart::kExperts];
    std::vector<std::string> cells{
        fmt::format("{:g} %", 100 * row.cut.keep),
        std::string(row.cut.scheme.label)};
    for (const std::int64_t bytes :
         {experts,
          f.weights.total() - experts,
          f.state,
          f.working + f.runtime,
          f.total,
          f.file}) {
      cells.push_back(format_bytes(bytes));
    }
    if (bounded) {
      cells.push_back(verdict(row));
      cells.push_back(
          row.longest_context > 0 ? std::to_string(row.longest_context) : "-");
    }
    text.add(cells);
  }
  return text.text();
}

std::string tune_rows_text(
    const chain::TuneTable& table, const chain::FitRequest& request) {
  const bool card = request.on_card();
  std::vector<std::string> header{"method", "weights"};
  if (card) header.emplace_back("card");
  for (const char* name : {"RAM", "disk", "a step reads", "writes", "takes"}) {
    header.emplace_back(name);
  }
  if (request.bounds.any()) header.emplace_back("fits");
  Table text(header);
  for (const chain::TuneRow& row : table.rows) {
    std::vector<std::string> cells{row.method, row.stored};
    if (card) cells.push_back(format_bytes(row.vram));
    for (const std::int64_t bytes :
         {row.ram, row.disk, row.read_bytes, row.written_bytes}) {
      cells.push_back(format_bytes(bytes));
    }
    cells.push_back(fmt::format("{:.3g} s", row.seconds));
    if (request.bounds.any()) {
      cells.push_back(
          row.fits ? format_bytes(row.left) + " left"
                   : format_bytes(-row.left) + " over");
    }
    text.add(cells);
  }
  return text.text();
}

// What lies beside the experts, of which no cut takes anything.
std::string beside_text(const FitTable& table) {
  const FitRow& stored = table.rows.front();
  const FitRow& last = table.rows.back();
  const bool packs = last.cut.scheme.scheme != stored.cut.scheme.scheme;
  std::vector<std::string> header{"\nbeside the experts", "stored"};
  if (packs) header.emplace_back("quantized");
  Table text(header);
  const auto add = [&](std::string_view name, auto bytes) {
    const std::int64_t plain = bytes(stored.footprint);
    const std::int64_t packed = bytes(last.footprint);
    if (plain == 0 && packed == 0) return;
    std::vector<std::string> cells{std::string(name), format_bytes(plain)};
    if (packs) cells.push_back(format_bytes(packed));
    text.add(cells);
  };
  using Bytes = const chain::Footprint&;
  for (std::size_t p = 0; p < chain::kFitParts; ++p) {
    const auto part = static_cast<FitPart>(p);
    if (part == FitPart::kExperts) continue;
    add(chain::fit_part_name(part), [&](Bytes f) { return f.weights[part]; });
  }
  add("program, libraries, driver", [](Bytes f) { return f.runtime; });
  if (table.request.on_card()) {
    add("in RAM, beside the card", [](Bytes f) { return f.ram; });
  }
  return text.text();
}

bool holds(const FitRow& row) {
  return row.fits == Fits::kYes || row.fits == Fits::kSplit;
}

// For each share the most bits that fit: rows come by falling bits.
std::vector<FitRow> best_rows(const FitTable& table) {
  std::map<double, FitRow, std::greater<>> best;
  for (const FitRow& row : table.rows) {
    if (holds(row)) best.try_emplace(row.cut.keep, row);
  }
  std::vector<FitRow> rows;
  for (const auto& [keep, row] : best) rows.push_back(row);
  return rows;
}

std::string legend_text(const FitTable& table) {
  std::string text =
      "kept: of the experts' neurons. state: of the conversations. work: a "
      "prompt in the layers, layers on their way, libraries.";
  const auto any = [&](Fits fits) {
    return std::ranges::any_of(
        table.rows, [&](const FitRow& row) { return row.fits == fits; });
  };
  if (table.request.bounds.any()) {
    text += " tokens: the longest conversation that fits.";
  }
  if (any(Fits::kSplit)) {
    text += " layers out: so many layers' experts lie in RAM.";
  }
  if (any(Fits::kStreams)) {
    text += " reads: runs, but reads so much anew for each token.";
  }
  return wrapped(text, 0, 0) + "\n";
}

std::string stage_text(const FitRow& row, const FitTable& table) {
  std::string stages;
  const chain::Engine& engine = chain::find_engine(table.request.engine);
  const bool own = engine.export_form.empty();
  const std::string target =
      own ? "" : fmt::format(" --for {}", engine.for_option);
  if (row.cut.keep < 1.0) {
    stages += fmt::format("trim --keep {:g}{}", row.cut.keep, target);
  }
  if (row.cut.scheme.scheme != "keep") {
    stages += fmt::format(
        "{}quant --bits {}{}",
        stages.empty() ? "" : ", ",
        row.cut.scheme.scheme,
        target);
    if (engine.storage == chain::Storage::kGguf && row.cut.scheme.group > 32) {
      stages += fmt::format(" --group {}", row.cut.scheme.group);
    }
  }
  if (!own) {
    const bool plain = row.cut.scheme.scheme == "keep";
    const std::string_view form =
        plain && engine.export_form != "gguf" ? "hf" : engine.export_form;
    stages +=
        fmt::format("{}export --format {}", stages.empty() ? "" : ", ", form);
  }
  if (row.fits == Fits::kSplit) {
    stages += fmt::format(", --n-cpu-moe {}", row.moved_layers);
  }
  return stages.empty() ? "as it is" : stages;
}

std::string choices_text(const FitTable& table) {
  if (!table.request.bounds.any()) return "";
  const std::vector<FitRow> best = best_rows(table);
  if (best.empty()) {
    return "\nnothing fits whole; what reads layers anew for each token runs, "
           "but slowly\n";
  }
  std::string text = "\nthe most bits that fit, and the stages that make it:\n";
  for (const FitRow& row : best) {
    const std::string name =
        fmt::format("{:g} % as {}", 100 * row.cut.keep, row.cut.scheme.label);
    text += fmt::format(
        "{:<19}{}\n", name, wrapped(stage_text(row, table), 19, 19));
  }
  return text;
}

std::string least_text(const FitTable& table) {
  const FitRow& whole = table.smallest;
  const FitRow& least = table.least;
  const auto named = [](std::int64_t bytes, const FitRow& row) {
    return fmt::format(
        "{} ({:g} % as {})",
        format_bytes(bytes),
        100 * row.cut.keep,
        row.cut.scheme.label);
  };
  std::string text = fmt::format(
      "\nthe least that would do at {} tokens: {}\n",
      table.request.context,
      named(whole.footprint.total, whole));
  if (least.footprint.least < least.footprint.total) {
    text += fmt::format(
        "where each token reads layers anew: {}\n",
        named(least.footprint.least, least));
  }
  for (const chain::RefusedScheme& one : table.refused) {
    text += wrapped(fmt::format("no {}: {}", one.label, one.why), 2, 0) + "\n";
  }
  return text;
}

std::string basis_text(const chain::FitSource& source, const FitTable& table) {
  const chain::Engine& engine = chain::find_engine(table.request.engine);
  const auto line = [](std::string_view name, const std::string& what) {
    return fmt::format("{}: {}\n", name, wrapped(what, 2, name.size() + 2));
  };
  std::string text =
      line("exact", fmt::format("{}", fmt::join(source.exact(), "; ")));
  std::vector<std::string> assumed = source.assumed();
  assumed.emplace_back(
      "a cut that takes the same share of every expert; matrices beside the "
      "experts in int8, embeddings and head as they are, as fettle quant "
      "stores them");
  if (table.request.on_card()) {
    assumed.push_back(fmt::format(
        "{} for the card's driver and libraries",
        format_bytes(engine.work.card_bytes)));
  }
  text += line("assumed", fmt::format("{}", fmt::join(assumed, "; ")));
  return text + line("state and work by", std::string(engine.source));
}

}  // namespace

std::string fit_text(
    const chain::FitSource& source,
    const FitTable& table,
    const FitPaths& paths) {
  return model_text(source) + bounds_text(table.request) + table_text(table) +
         legend_text(table) + beside_text(table) + choices_text(table) +
         least_text(table) + basis_text(source, table) +
         closing_text(
             {.report = paths.report,
              .next = {
                  "fettle",
                  "analyze",
                  paths.model,
                  "--data",
                  "calib.jsonl",
                  "--out",
                  "scores"}});
}

std::string fit_tune_text(
    const chain::FitSource& source,
    const chain::FitRequest& request,
    const chain::TuneTable& table) {
  const std::string rests = fmt::format(
      "card and RAM: the least with which a step runs; with more, less is "
      "read. "
      "takes: by the products, or by the disk where that is slower, at {}. {}",
      table.rates.text(),
      source.assumed().empty()
          ? std::string()
          : fmt::format("assumed: {}.", fmt::join(source.assumed(), "; ")));
  return model_text(source) +
         fmt::format(
             "to tune on {}: steps of {} tokens, {} a sequence\n\n",
             place_text(request),
             table.tokens_per_step,
             table.seq_len) +
         tune_rows_text(table, request) + wrapped(rests, 0, 0) + "\n";
}

}  // namespace fettle::cli
