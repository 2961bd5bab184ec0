// SPDX-License-Identifier: Apache-2.0
#include "chain/fit_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <limits>

#include "core/bytes.h"
#include "core/error.h"

namespace fettle::chain {
namespace {

constexpr std::array kShares{1.0, 0.75, 0.5, 0.25};
constexpr std::int64_t kUsualContext = 8192;

struct Judged {
  Fits fits = Fits::kYes;
  std::int64_t left = std::numeric_limits<std::int64_t>::max();
  std::int64_t moved_layers = 0;
  std::int64_t missing = 0;  // where computing takes place
};

// How far a bound goes, tightest first.
void bound(
    Judged& judged, std::optional<std::int64_t> has, std::int64_t needs) {
  if (has) judged.left = std::min(judged.left, *has - needs);
}

class Judge {
 public:
  Judge(const FitRequest& request, const Engine& engine)
      : bounds_(request.bounds), engine_(engine), on_card_(request.on_card()) {}

  Judged operator()(const Footprint& f) const {
    Judged judged;
    bound(judged, on_card_ ? bounds_.vram : bounds_.ram, f.total);
    if (on_card_) bound(judged, bounds_.ram, f.ram);
    bound(judged, bounds_.disk, f.file);
    bound(judged, bounds_.weights, f.file);
    if (judged.left >= 0) return judged;
    judged.fits = Fits::kNo;
    split(judged, f);
    if (judged.fits == Fits::kNo) stream(judged, f);
    return judged;
  }

 private:
  bool holds_file(const Footprint& f) const {
    return (!bounds_.disk || f.file <= *bounds_.disk) &&
           (!bounds_.weights || f.file <= *bounds_.weights);
  }

  // As many layers' experts go to RAM as the card has no room for.
  void split(Judged& judged, const Footprint& f) const {
    if (f.layer_experts <= 0 || !bounds_.vram || !bounds_.ram) return;
    const std::int64_t over = f.total - *bounds_.vram;
    if (over <= 0 || !holds_file(f)) return;
    const auto room = static_cast<std::int64_t>(
        engine_.work.usable * static_cast<double>(f.layer_experts));
    const std::int64_t layers = (over + room - 1) / room;
    if (layers * f.layer_experts > f.weights[FitPart::kExperts]) return;
    const std::int64_t left = *bounds_.ram - f.ram - layers * f.layer_experts;
    if (left < 0) return;
    judged = {Fits::kSplit, left, layers};
  }

  void stream(Judged& judged, const Footprint& f) const {
    if (!engine_.streams || !holds_file(f)) return;
    const auto has = on_card_ ? bounds_.vram : bounds_.ram;
    if (!has || f.least > *has) return;
    if (on_card_ && bounds_.ram && f.ram > *bounds_.ram) return;
    judged.fits = Fits::kStreams;
    judged.missing = std::min(f.total - *has, f.layers);
  }

  Bounds bounds_;
  const Engine& engine_;
  bool on_card_;
};

std::int64_t longest_context(
    const Candidate& candidate,
    const FitRequest& request,
    const Judge& judge,
    std::int64_t most) {
  const auto fits = [&](std::int64_t context) {
    const Fits found =
        judge(candidate.footprint(context, request.parallel)).fits;
    return found == Fits::kYes || found == Fits::kSplit;
  };
  std::int64_t low = 0;
  std::int64_t high = most;
  if (!request.bounds.any()) return most;
  if (fits(most)) return most;
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

FitRow judged_row(
    const Candidate& candidate,
    const FitRequest& request,
    const Judge& judge,
    std::int64_t max_context) {
  FitRow row;
  row.cut = candidate.cut();
  row.width = candidate.width();
  row.footprint = candidate.footprint(request.context, request.parallel);
  const Judged judged = judge(row.footprint);
  row.fits = judged.fits;
  row.left = request.bounds.any() ? judged.left : 0;
  row.moved_layers = judged.moved_layers;
  row.read_bytes = judged.missing;
  row.longest_context = longest_context(candidate, request, judge, max_context);
  return row;
}

std::vector<SchemeRow> wanted_schemes(
    const Engine& engine, const std::string& least) {
  std::vector<SchemeRow> rows;
  for (const SchemeRow& row : engine.schemes) {
    rows.push_back(row);
    if (row.label == least || row.scheme == least) return rows;
  }
  if (least.empty()) return rows;
  std::vector<std::string_view> names;
  for (const SchemeRow& row : engine.schemes) names.push_back(row.label);
  throw UserError(
      "fit",
      "--bits-min",
      fmt::format(
          "expected one of {} for {}, found {}",
          fmt::join(names, ", "),
          engine.name,
          least));
}

std::vector<double> wanted_shares(double least) {
  std::vector<double> shares;
  for (const double share : kShares) {
    if (share >= least) shares.push_back(share);
  }
  if (shares.back() > least) shares.push_back(least);
  return shares;
}

// What must be there at least where it runs: of a program that reads weights
// anew, those that are in use.
std::string needs_text(const Footprint& f) {
  const bool streams = f.least < f.total;
  std::vector<std::string> parts;
  std::int64_t work = f.least - f.state - f.runtime;
  const auto add = [&](std::string_view name, std::int64_t bytes) {
    if (bytes > 0) {
      parts.push_back(fmt::format("{} {}", name, format_bytes(bytes)));
    }
  };
  for (std::size_t p = 0; p < kFitParts && !streams; ++p) {
    const auto part = static_cast<FitPart>(p);
    add(fit_part_name(part), f.weights[part]);
    work -= f.weights[part];
  }
  add("conversations", f.state);
  add(streams ? "a layer and a prompt in it, or the head" : "working set",
      work);
  add("program and libraries", f.runtime);
  return fmt::format("{}", fmt::join(parts, ", "));
}

struct Limit {
  const char* option;
  std::optional<std::int64_t> has;
  std::int64_t Footprint::*needs;
};

// Refuses a bound that the row does not keep.
void refuse_beyond(
    const Limit& limit, const FitRow& row, const FitRequest& request) {
  const std::int64_t needs = row.footprint.*limit.needs;
  if (!limit.has || *limit.has >= needs) return;
  std::string parts;
  if (limit.needs == &Footprint::file) {
    parts = ": " + row.footprint.stored.text();
  } else if (limit.needs == &Footprint::least) {
    parts = fmt::format(
        ", {} tokens: {}", request.context, needs_text(row.footprint));
  }
  throw UserError(
      "fit",
      limit.option,
      fmt::format(
          "{} is too little; the least is {} ({:g} % of the experts' neurons "
          "as {}{})",
          format_bytes(*limit.has),
          format_bytes(needs),
          100 * row.cut.keep,
          row.cut.scheme.label,
          parts));
}

// Names the first bound that no row keeps.
[[noreturn]] void refuse_all(const FitTable& table) {
  const FitRequest& request = table.request;
  const bool card = request.on_card();
  const std::array limits{
      Limit{"--budget", request.bounds.weights, &Footprint::file},
      Limit{"--disk", request.bounds.disk, &Footprint::file},
      Limit{"--vram", request.bounds.vram, &Footprint::least},
      Limit{
          "--ram",
          request.bounds.ram,
          card ? &Footprint::ram : &Footprint::least}};
  for (const Limit& limit : limits) {
    refuse_beyond(
        limit,
        *std::ranges::min_element(
            table.rows,
            {},
            [&](const FitRow& one) { return one.footprint.*limit.needs; }),
        request);
  }
  // Each can be kept, but by different rows.
  for (const Limit& limit : limits) {
    refuse_beyond(limit, table.smallest, request);
  }
  throw InternalError("no row fits, and the smallest breaks no bound");
}

}  // namespace

std::string_view fits_name(Fits fits) {
  switch (fits) {
    case Fits::kYes:
      return "yes";
    case Fits::kSplit:
      return "split";
    case Fits::kStreams:
      return "streams";
    case Fits::kNo:
      return "no";
  }
  return "";
}

FitRequest settled(FitRequest request, const FitSource& source) {
  const Engine& engine = find_engine(request.engine);
  const std::int64_t most = source.config().max_position;
  require_engine(engine, source.config());
  if (engine.needs_card && !request.on_card()) {
    throw UserError(
        "fit",
        fmt::format("--engine {}", engine.name),
        "computes on a card: give --vram");
  }
  if (request.purpose == Purpose::kTune && !engine.streams) {
    throw UserError(
        "fit",
        fmt::format("--engine {}", engine.name),
        "is no program that tunes; leave it out, or --for tune");
  }
  if (request.context == 0) {
    request.context = most > 0 ? std::min(most, kUsualContext) : kUsualContext;
  }
  if (most > 0 && request.context > most) {
    throw UserError(
        "fit",
        "--context",
        fmt::format(
            "expected at most the model's {} positions, found {}",
            most,
            request.context));
  }
  return request;
}

FitTable fit_table(const FitSource& source, const FitRequest& request) {
  const Engine& engine = find_engine(request.engine);
  const Judge judge(request, engine);
  FitTable table;
  table.request = request;
  table.max_context = std::max(source.config().max_position, request.context);
  for (const SchemeRow& scheme : wanted_schemes(engine, request.bits_min)) {
    for (const double share : wanted_shares(request.keep_min)) {
      const Candidate candidate(
          source, engine, {share, scheme}, request.on_card());
      if (!candidate.why_not().empty()) {
        table.refused.push_back(
            {std::string(scheme.label), candidate.why_not()});
        break;
      }
      // Filled up to whole blocks, it may be as wide as one that keeps more.
      const bool same = share < 1.0 && !table.rows.empty() &&
                        table.rows.back().cut.scheme.label == scheme.label &&
                        table.rows.back().width == candidate.width();
      if (same) continue;
      table.rows.push_back(
          judged_row(candidate, request, judge, table.max_context));
    }
  }
  FETTLE_ASSERT(!table.rows.empty());
  table.smallest = *std::ranges::min_element(
      table.rows, {}, [](const FitRow& row) { return row.footprint.total; });
  table.least = *std::ranges::min_element(
      table.rows, {}, [](const FitRow& row) { return row.footprint.least; });
  const bool none = std::ranges::all_of(
      table.rows, [](const FitRow& row) { return row.fits == Fits::kNo; });
  if (none) refuse_all(table);
  return table;
}

Json FitRow::to_json() const {
  Json parts = Json::object();
  for (std::size_t p = 0; p < kFitParts; ++p) {
    const auto part = static_cast<FitPart>(p);
    parts[std::string(fit_part_name(part))] = footprint.weights[part];
  }
  return {
      {"keep", cut.keep},
      {"scheme", cut.scheme.label},
      {"bits", cut.scheme.scheme},
      {"group", cut.scheme.group},
      {"width", width},
      {"weights", std::move(parts)},
      {"file_bytes", footprint.file},
      {"state_bytes", footprint.state},
      {"working_bytes", footprint.working},
      {"runtime_bytes", footprint.runtime},
      {"total_bytes", footprint.total},
      {"ram_bytes", footprint.ram},
      {"least_bytes", footprint.least},
      {"fits", fits_name(fits)},
      {"left_bytes", left},
      {"moved_layers", moved_layers},
      {"read_bytes_per_token", read_bytes},
      {"longest_context", longest_context}};
}

Json FitTable::to_json() const {
  const auto bound_json = [](const std::optional<std::int64_t>& bytes) {
    return bytes ? Json(*bytes) : Json();
  };
  Json json = {
      {"engine", request.engine},
      {"context", request.context},
      {"parallel", request.parallel},
      {"max_context", max_context},
      {"on_card", request.on_card()},
      {"vram_bytes", bound_json(request.bounds.vram)},
      {"ram_bytes", bound_json(request.bounds.ram)},
      {"disk_bytes", bound_json(request.bounds.disk)},
      {"budget_bytes", bound_json(request.bounds.weights)},
      {"rows", Json::array()},
      {"refused", Json::array()},
      {"smallest", smallest.to_json()},
      {"least", least.to_json()}};
  for (const FitRow& row : rows) json["rows"].push_back(row.to_json());
  for (const RefusedScheme& one : refused) {
    json["refused"].push_back({{"scheme", one.label}, {"why", one.why}});
  }
  return json;
}

}  // namespace fettle::chain
