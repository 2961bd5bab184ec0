// SPDX-License-Identifier: Apache-2.0
#include "chain/tune_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

#include "chain/candidate.h"
#include "core/bytes.h"
#include "core/error.h"
#include "tune/method/method.h"
#include "tune/method/method_lora.h"
#include "tune/run_plan.h"

namespace fettle::chain {
namespace {

constexpr std::int64_t kUnbounded = std::int64_t{1} << 60;

// The whole model, its weights as those of the candidate's kinds of layers.
model::WeightForms forms_of(
    const FitSource& source, const Candidate& candidate) {
  std::map<std::int64_t, std::int64_t> kinds;  // by the layer's index
  const auto& layers = source.config().layers;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    kinds[static_cast<std::int64_t>(l)] =
        source.kind_of(static_cast<std::int64_t>(l));
  }
  return [&candidate, kinds](const model::WeightId& id) {
    if (id.layer < 0) return candidate.form(id);
    return candidate.form({id.role, kinds.at(id.layer), id.expert});
  };
}

// Forward, forward again where the sweep goes back, and as much for the
// gradients of what a layer reads; once more for those of all weights.
double passes_of(const std::string& method) {
  return method == "full" ? 4.0 : 3.0;
}

double flops_of_token(const model::ModelConfig& config, std::int64_t seq_len) {
  double attention = 0.0;
  for (const model::LayerConfig& layer : config.layers) {
    if (layer.mixer != model::MixerKind::kAttention) continue;
    const model::AttentionConfig& a = config.attention_of(layer);
    const double mean = 0.5 * static_cast<double>(seq_len);
    attention +=
        2.0 * mean * static_cast<double>(a.heads * (a.head_dim + a.v_head_dim));
  }
  std::int64_t multiplied = config.active_parameters();
  if (!config.tie_word_embeddings) {
    multiplied -= config.vocab_size * config.hidden_size;
  }
  return 2.0 * static_cast<double>(multiplied) + attention;
}

class TunePlanner {
 public:
  TunePlanner(
      const FitSource& source, const FitRequest& request, const Rates& rates)
      : source_(source), request_(request), rates_(rates) {}

  TuneRow plan(const tune::TuneOptions& options, const Candidate& base) const {
    const model::ModelConfig& config = source_.config();
    const tune::PlannedModel model{config, forms_of(source_, base)};
    const sweep::Workload work = workload(options);
    const sweep::SweepPlan least = sweep::least_plan(config, model.forms, work);
    TuneRow row{
        .method = options.method,
        .stored = std::string(base.cut().scheme.label)};
    if (!work.device.is_cpu()) {
      row.vram = sweep::budget_for(least.vram_bytes()) + driver_bytes();
    }
    row.ram = sweep::budget_for(least.ram_bytes());
    const std::int64_t room = std::min(
        left(request_.bounds.vram, row.vram),
        left(request_.bounds.ram, row.ram));
    const sweep::SweepPlan sweep =
        room < 0 ? least
                 : sweep::plan_sweep(config, model.forms, work, budget());
    const tune::RunPlan run = tune::plan_run(sweep, options, model, false);
    row.disk = run.total().disk;
    row.left = std::min(room, left(request_.bounds.disk, row.disk));
    row.fits = row.left >= 0;
    row.read_bytes = run.read_bytes;
    row.written_bytes = run.written_bytes;
    row.seconds = seconds(options, run);
    if (!request_.bounds.any()) row.left = 0;
    return row;
  }

 private:
  static std::int64_t left(
      const std::optional<std::int64_t>& has, std::int64_t needs) {
    return has ? *has - needs : std::numeric_limits<std::int64_t>::max();
  }

  std::int64_t driver_bytes() const {
    return find_engine("fettle").work.card_bytes;
  }

  sweep::Budget budget() const {
    sweep::Budget budget;
    budget.ram = request_.bounds.ram.value_or(kUnbounded);
    budget.vram = request_.bounds.vram ? *request_.bounds.vram - driver_bytes()
                                       : kUnbounded;
    return budget;
  }

  // As tune makes it.
  sweep::Workload workload(const tune::TuneOptions& options) const {
    sweep::Workload work;
    work.tokens = options.tokens_per_step;
    work.longest_sequence = options.seq_len;
    work.backward = true;
    work.hold_globals = tune::trains_globals(options, source_.config());
    const bool card = request_.on_card();
    work.device = card ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
    work.compute_type = card ? at::kBFloat16 : at::kFloat;
    const tune::PartBytes parts =
        tune::part_bytes(options, source_.config(), work.device);
    work.extra_bytes = static_cast<std::int64_t>(parts.ram);
    work.extra_vram_bytes = static_cast<std::int64_t>(parts.device);
    work.extra_graph_bytes = tune::lora_graph_bytes(options, source_.config());
    return work;
  }

  double seconds(
      const tune::TuneOptions& options, const tune::RunPlan& run) const {
    const double flops = passes_of(options.method) *
                         static_cast<double>(options.tokens_per_step) *
                         flops_of_token(source_.config(), options.seq_len);
    const double disk =
        static_cast<double>(run.read_bytes + run.written_bytes) / rates_.read;
    return std::max(flops / rates_.products, disk);
  }

  const FitSource& source_;
  const FitRequest& request_;
  const Rates& rates_;
};

[[noreturn]] void refuse_all(
    const std::vector<TuneRow>& rows, const FitRequest& request) {
  const bool card = request.on_card();
  const auto& least = *std::ranges::min_element(
      rows, {}, [&](const TuneRow& row) { return card ? row.vram : row.ram; });
  const Bounds& bounds = request.bounds;
  const bool vram = bounds.vram && *bounds.vram < least.vram;
  const bool ram = bounds.ram && *bounds.ram < least.ram;
  const std::int64_t has = vram  ? *bounds.vram
                           : ram ? *bounds.ram
                                 : bounds.disk.value_or(0);
  throw UserError(
      "fit",
      vram ? "--vram" : (ram ? "--ram" : "--disk"),
      fmt::format(
          "{} is too little to tune this model; the least is {} (method {}, "
          "weights {})",
          format_bytes(has),
          format_bytes(vram ? least.vram : (ram ? least.ram : least.disk)),
          least.method,
          least.stored));
}

}  // namespace

TuneTable tune_table(
    const FitSource& source, const FitRequest& request, const Rates& rates) {
  const Engine& engine = find_engine("fettle");
  TuneTable table{.rates = rates};
  const TunePlanner planner(source, request, rates);
  for (const SchemeRow& scheme : engine.schemes) {
    const std::string_view bits = scheme.scheme;
    if (bits != "keep" && bits != "int8" && bits != "int4") continue;
    const Candidate base(source, engine, {1.0, scheme}, request.on_card());
    for (const tune::Method& method : tune::methods()) {
      if (bits != "keep" && std::string_view(method.name) == "full") continue;
      tune::TuneOptions options;
      options.method = method.name;
      options = tune::settled(options, source.config());
      table.tokens_per_step = options.tokens_per_step;
      table.seq_len = options.seq_len;
      table.rows.push_back(planner.plan(options, base));
    }
  }
  if (std::ranges::none_of(table.rows, &TuneRow::fits)) {
    refuse_all(table.rows, request);
  }
  return table;
}

Json TuneRow::to_json() const {
  return {
      {"method", method},
      {"stored", stored},
      {"vram_bytes", vram},
      {"ram_bytes", ram},
      {"disk_bytes", disk},
      {"read_bytes_per_step", read_bytes},
      {"written_bytes_per_step", written_bytes},
      {"seconds_per_step", seconds},
      {"fits", fits},
      {"left_bytes", left}};
}

Json TuneTable::to_json() const {
  Json json = {
      {"tokens_per_step", tokens_per_step},
      {"seq_len", seq_len},
      {"flops_per_second", rates.products},
      {"flops_measured", rates.products_measured},
      {"read_bytes_per_second", rates.read},
      {"read_measured", rates.read_measured},
      {"rows", Json::array()}};
  for (const TuneRow& row : rows) json["rows"].push_back(row.to_json());
  return json;
}

}  // namespace fettle::chain
