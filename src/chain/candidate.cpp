// SPDX-License-Identifier: Apache-2.0
#include "chain/candidate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "artifact/model_writer.h"
#include "core/error.h"
#include "export/codes/bit_stream.h"
#include "export/gguf/gguf_blocks.h"
#include "export/gguf/gguf_metadata.h"
#include "export/gguf/gguf_tensors.h"
#include "export/stock_layout.h"
#include "model/weights/loaded_bytes.h"
#include "model/weights/weight_view.h"
#include "trim/kept_check.h"
#include "trim/packed_slices.h"

namespace fettle::chain {
namespace {

using model::Role;
using model::WeightId;

// As fettle quant stores the matrices beside the experts.
constexpr std::string_view kOtherScheme = "int8";

std::int64_t numbers_of(at::ScalarType type) {
  return static_cast<std::int64_t>(c10::elementSize(type));
}

// The multiple of `unit` next to a share of `width`: at least one, and never
// more than there is.
std::int64_t cut_width(std::int64_t width, double keep, std::int64_t unit) {
  if (keep >= 1.0 || width == 0) return width;
  const double wanted = static_cast<double>(width) * keep;
  const auto units = static_cast<std::int64_t>(
      std::llround(wanted / static_cast<double>(unit)));
  return std::min(width, std::max<std::int64_t>(units, 1) * unit);
}

// Bits of a code in words: of 4 or 8, into which export --recode puts others.
std::int64_t word_bits(const model::PackedHeader& h) {
  const bool ints = h.kind == kernels::PackedKind::kInt;
  const std::int64_t needed = ints ? h.bits + (h.zeros ? 1 : 0) : 2;
  return needed <= 4 ? 4 : 8;
}

// Experts of unequal widths have groups and bytes that are not full: one a row.
std::int64_t ragged_ends(const WeightId& id, const model::PackedHeader& h) {
  constexpr std::int64_t kScaleAndByte = 3;
  return id.role == Role::kExpertDown ? h.rows * kScaleAndByte : 0;
}

}  // namespace

double Footprint::widening() const {
  if (file <= 0) return 1;
  const auto held = static_cast<double>(weights.total());
  return std::max(1.0, held / static_cast<double>(file));
}

Candidate::Candidate(
    const FitSource& source, const Engine& engine, const Cut& cut, bool on_card)
    : source_(source),
      engine_(engine),
      kinds_(source.kinds()),
      cut_(cut),
      on_card_(on_card),
      scheme_(quant::parse_scheme(cut.scheme.scheme)),
      config_(source.config()) {
  choose_group();
  cut_layers();
  find_refusal();
  if (!why_not_.empty()) return;
  count_weights();
  if (engine_.storage == Storage::kFettle) plan_memory();
}

Candidate::Candidate(
    const FitSource& source,
    const Engine& engine,
    PlannedWeights plan,
    bool on_card)
    : source_(source),
      engine_(engine),
      plan_(std::move(plan)),
      cut_({.keep = 1.0, .scheme = engine.schemes.front()}),
      on_card_(on_card),
      scheme_(quant::parse_scheme(cut_.scheme.scheme)),
      config_(plan_->config) {
  FETTLE_ASSERT(config_.num_layers() == source.config().num_layers());
  for (std::int64_t l = 0; l < config_.num_layers(); ++l) {
    kinds_.push_back({l, 1});
  }
  width_ = trim::widest_expert(config_);
  count_weights();
  if (engine_.storage == Storage::kFettle) plan_memory();
}

// As fettle quant --for hf and vllm: the largest that divides the hidden size.
void Candidate::choose_group() {
  if (cut_.scheme.group > 0 || scheme_.keep) return;
  constexpr std::array<std::int64_t, 4> kGroups{128, 64, 32, 16};
  cut_.scheme.group = kGroups.front();
  for (const std::int64_t group : kGroups) {
    if (config_.hidden_size % group != 0) continue;
    cut_.scheme.group = group;
    return;
  }
}

void Candidate::cut_layers() {
  std::int64_t unit = exporter::width_unit(engine_.target);
  if (scheme_.keep) unit = std::lcm(unit, source_.block_unit());
  const bool uniform = exporter::wants_uniform(engine_.target);
  const std::int64_t widest = trim::widest_expert(source_.config());
  std::vector<model::LayerConfig> layers;
  for (const LayerKind& kind : kinds_) {
    layers.push_back(source_.config().layers[kind.first]);
    for (std::int64_t& width : layers.back().expert_widths) {
      width = cut_width(uniform ? widest : width, cut_.keep, unit);
    }
  }
  config_.layers = std::move(layers);
  if (engine_.storage == Storage::kWords && !scheme_.keep) {
    pad_layers(std::lcm(exporter::kLoaderUnit, cut_.scheme.group));
  }
  if (engine_.storage == Storage::kGguf) pad_to_blocks();
  width_ = trim::widest_expert(config_);
}

void Candidate::pad_layers(std::int64_t unit) {
  for (model::LayerConfig& layer : config_.layers) {
    for (std::int64_t& width : layer.expert_widths) {
      width = exporter::rounded_up(width, unit);
    }
    layer.shared_width = exporter::rounded_up(layer.shared_width, unit);
    layer.dense_width = exporter::rounded_up(layer.dense_width, unit);
  }
}

// Of the widths that blocks fill, that of the fewest bytes.
void Candidate::pad_to_blocks() {
  if (scheme_.keep) return;
  const model::ModelConfig plain = config_;
  std::optional<model::ModelConfig> best;
  std::int64_t least = 0;
  for (const std::int64_t unit : {32, 256}) {
    config_ = plain;
    pad_layers(unit);
    find_refusal();
    if (!why_not_.empty()) continue;
    std::int64_t bytes = 0;
    for (const WeightId& id : model::model_weights(config_)) {
      if (model::is_expert_role(id.role)) bytes += gguf_bytes(id);
    }
    if (best && bytes >= least) continue;
    least = bytes;
    best = config_;
  }
  if (best) config_ = *best;
}

void Candidate::find_refusal() {
  why_not_.clear();
  if (scheme_.keep) return;
  if (engine_.storage == Storage::kWords &&
      model::weight_row(config_, Role::kExpertUp).stacked_only) {
    why_not_ =
        "its loaders find experts in stacks, which compressed-tensors does not "
        "hold";
    return;
  }
  if (engine_.storage != Storage::kGguf) return;
  for (const WeightId& id : model::model_weights(config_)) {
    if (id.expert > 0) continue;
    const auto packed = header(id);
    if (!packed) continue;
    const std::array levels{exporter::levels_of(*packed)};
    const std::int64_t cols = exporter::part_shape(config_, id).second;
    if (exporter::exact_type(levels, cols)) continue;
    why_not_ = fmt::format(
        "rows of {} weights of {} are no whole blocks",
        cols,
        model::role_name(id.role));
    return;
  }
}

WeightId Candidate::in_source(const WeightId& id) const {
  if (id.layer < 0) return id;
  return {id.role, kinds_[id.layer].first, id.expert};
}

std::int64_t Candidate::count_of(const WeightId& id) const {
  return id.layer < 0 ? 1 : kinds_[id.layer].count;
}

// Of a weight that is packed, by the scheme or because it was.
std::optional<model::PackedHeader> Candidate::header(const WeightId& id) const {
  if (plan_) return plan_->packed(id);
  const auto part = quant::part_of(id.role);
  if (!part || model::weight_numel(config_, id) == 0) return std::nullopt;
  const auto shape = model::weight_shape(config_, id);
  const bool global = id.layer < 0;
  if (scheme_.keep || global) {
    const model::PackedHeader* stored = source_.packed(in_source(id));
    if (stored == nullptr) return std::nullopt;
    if (stored->rows == shape[0] && stored->cols == shape[1]) return *stored;
    return trim::resized(*stored, shape[0], shape[1]);
  }
  const bool expert = model::kExpertRoles.has(id.role);
  const quant::GridOptions grid{.group = cut_.scheme.group, .symmetric = true};
  return quant::planned_header(
      expert ? scheme_ : quant::parse_scheme(kOtherScheme),
      grid,
      shape[0],
      shape[1]);
}

model::WeightForm Candidate::form(const WeightId& id) const {
  if (const auto packed = header(id)) {
    const bool ragged = engine_.storage == Storage::kFettle && cut_.keep < 1.0;
    const std::int64_t ends = ragged ? ragged_ends(id, *packed) : 0;
    return {
        .dtype = at::kFloat,
        .packed_bytes = packed->bytes() + ends,
        .loaded_bytes = model::memory_bytes(*packed) + ends};
  }
  model::WeightForm plain = source_.form(in_source(id));
  plain.packed_bytes = plain.loaded_bytes = 0;
  return plain;
}

std::int64_t Candidate::gguf_bytes(const WeightId& id) const {
  const std::int64_t numel = model::weight_numel(config_, id);
  if (numel == 0) return 0;
  const auto [rows, cols] = exporter::part_shape(config_, id);
  if (const auto packed = header(id)) {
    const std::array levels{exporter::levels_of(*packed)};
    const auto type = exporter::exact_type(levels, cols);
    return type ? rows * exporter::row_bytes(*type, cols) : 2 * numel;
  }
  const model::WeightForm plain = form(id);
  if (plain.blocks && plain.blocks->bits == 4 && cols % 32 == 0) {
    return rows * exporter::row_bytes(exporter::BlockType::kMXFP4, cols);
  }
  const bool matrix =
      model::role_info(id.role).kind == model::RoleKind::kMatrix;
  return numel * (matrix ? numbers_of(plain.dtype) : 4);
}

std::int64_t Candidate::file_bytes(const WeightId& id) const {
  if (engine_.storage == Storage::kGguf) return gguf_bytes(id);
  const auto packed = header(id);
  if (packed && engine_.storage == Storage::kWords) {
    constexpr std::int64_t kShapeBytes = 16;
    const std::int64_t words =
        packed->rows * exporter::stream_words(packed->cols, word_bits(*packed));
    // Scales are of the type that the model is loaded in.
    const std::int64_t scale =
        numbers_of(source_.form({Role::kEmbedTokens}).dtype);
    return 4 * words + scale * packed->rows * packed->groups() + kShapeBytes;
  }
  const bool whole = model::weight_shape(config_, id) ==
                     model::weight_shape(source_.config(), in_source(id));
  if (!packed && whole && scheme_.keep) {
    return source_.stored_bytes(in_source(id));
  }
  return artifact::weight_bytes(config_, id, form(id));
}

at::ScalarType Candidate::globals_type() const {
  return model::globals_type(
      config_,
      [this](const WeightId& id) { return form(id); },
      workload(0).compute_type,
      !on_card_);
}

// As model::loaded_bytes counts.
std::int64_t Candidate::loaded_bytes(const WeightId& id) const {
  const model::WeightForm weight = form(id);
  if (weight.packed() && id.layer >= 0) return weight.loaded_bytes;
  const at::ScalarType type = workload(0).compute_type;
  const at::ScalarType held =
      id.role == Role::kEmbedTokens || id.role == Role::kLmHead
          ? globals_type()
          : model::loaded_type(id.role, type);
  return model::weight_numel(config_, id) * numbers_of(held);
}

// By another program, of a weight that has `bytes` in its file.
std::int64_t Candidate::held_bytes(
    const WeightId& id, std::int64_t bytes) const {
  if (!engine_.unpacks || !header(id)) return bytes;
  const at::ScalarType type = source_.form({Role::kEmbedTokens}).dtype;
  return bytes + model::weight_numel(config_, id) * numbers_of(type);
}

void Candidate::count_weights() {
  const bool own = engine_.storage == Storage::kFettle;
  for (const WeightId& id : model::model_weights(config_)) {
    const std::int64_t count = count_of(id);
    const std::int64_t bytes = file_bytes(id);
    const FitPart part = fit_part_of(id.role);
    stored_[part] += count * bytes;
    weights_[part] += count * (own ? loaded_bytes(id) : held_bytes(id, bytes));
  }
  const bool gguf = engine_.storage == Storage::kGguf;
  if (gguf && config_.tie_word_embeddings) {
    // llama.cpp makes a head of them where it computes.
    weights_[FitPart::kHead] = weights_[FitPart::kEmbeddings];
    const bool demands =
        exporter::gguf_family(source_.config(), {.nearest = true}).demands_head;
    if (demands) stored_[FitPart::kHead] = weights_[FitPart::kHead];
  }
  if (gguf) return;
  stored_[FitPart::kCarried] = source_.carried_bytes();
  if (!own) weights_[FitPart::kCarried] = source_.carried_bytes();
}

sweep::Workload Candidate::workload(std::int64_t tokens) const {
  sweep::Workload work;
  work.tokens = work.longest_sequence = tokens;
  work.keep_packed = true;
  work.logit_rows = 1;
  work.device = on_card_ ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  work.compute_type = on_card_ ? at::kBFloat16 : at::kFloat;
  return work;
}

// What does not depend on the conversations.
void Candidate::plan_memory() {
  const model::WeightForms forms = [this](const WeightId& id) {
    return form(id);
  };
  least_ = sweep::least_plan(config_, forms, workload(0));
  transit_ = least_.layer_bytes;
  if (cut_.keep < 1.0) {
    // Where layers compete, one of them may stay as large as it was.
    const Candidate whole(source_, engine_, {1.0, cut_.scheme}, on_card_);
    transit_ = std::max(transit_, whole.transit_);
  }
  const at::ScalarType type = least_.workload.compute_type;
  globals_ = model::global_bytes(config_, forms, type, !on_card_);
  const model::LoadedBytes loaded = model::loaded_bytes(config_, forms, type);
  for (std::size_t k = 0; k < loaded.layers.size(); ++k) {
    all_layers_ += kinds_[k].count * loaded.layers[k].kept;
  }
}

// The budget under which generate plans to keep all layers: a prompt passes in
// pieces, and a token of every conversation together.
Footprint Candidate::own_footprint(
    Footprint made, std::int64_t context, std::int64_t parallel) const {
  const std::int64_t batch =
      std::max(std::min(context, engine_.work.batch_tokens), parallel);
  const sweep::Workload work = workload(batch);
  const std::int64_t passing =
      transit_ + batch * sweep::bytes_per_token(source_.config(), work);
  const std::int64_t logits =
      parallel * sweep::logit_bytes(config_, work.logit_rows);
  const std::int64_t boundary = sweep::boundary_bytes(config_, work);
  const std::int64_t program = on_card_ ? 0 : least_.runtime_bytes;
  const std::int64_t always = program + least_.library_bytes + made.state;
  const std::int64_t least =
      always + globals_.norm + std::max(passing, globals_.head + logits);
  const std::int64_t holding =
      always + globals_.all + std::max(passing, logits) + all_layers_;
  const std::int64_t driver = on_card_ ? engine_.work.card_bytes : 0;
  made.layers = all_layers_;
  made.least = sweep::budget_for(least) + driver;
  made.total = sweep::budget_for(holding + boundary) + driver;
  made.runtime = program + least_.library_bytes + driver;
  made.working = made.total - made.runtime - made.state - made.weights.total();
  made.ram =
      on_card_ ? sweep::budget_for(least_.runtime_bytes + least_.staging_bytes)
               : made.total;
  return made;
}

Footprint Candidate::footprint(
    std::int64_t context, std::int64_t parallel) const {
  Footprint made{
      .weights = weights_, .stored = stored_, .file = stored_.total()};
  const bool own = engine_.storage == Storage::kFettle;
  const StateRules rules =
      own ? own_state_rules(on_card_ ? 2 : 4) : engine_.state;
  made.state = parallel * conversation_bytes(source_.config(), rules, context);
  if (own) return own_footprint(made, context, parallel);

  const WorkRules& rule = engine_.work;
  const std::int64_t batch =
      rule.batch_tokens > 0 ? std::min(rule.batch_tokens, context) : context;
  sweep::Workload work = workload(batch);
  work.compute_type = rule.number_bytes == 4 ? at::kFloat : at::kBFloat16;
  made.working =
      (1 + rule.copies) * batch * sweep::bytes_per_token(config_, work) +
      rule.logit_rows * config_.vocab_size * 4 +
      context * rule.bytes_per_context;
  made.runtime = on_card_ ? rule.card_bytes : rule.ram_bytes;
  std::int64_t beside = 0;  // weights that stay in RAM
  if (on_card_ && engine_.embeds_in_ram) {
    beside = weights_[FitPart::kEmbeddings];
    made.weights[FitPart::kEmbeddings] = 0;
  }
  const std::int64_t sum =
      made.weights.total() + made.state + made.working + made.runtime;
  made.total = on_card_ ? static_cast<std::int64_t>(
                              std::ceil(static_cast<double>(sum) / rule.usable))
                        : sum;
  made.working += made.total - sum;
  made.ram = on_card_ ? rule.ram_bytes + beside : made.total;
  made.least = made.total;
  std::int64_t sparse = 0;
  for (std::size_t k = 0; k < config_.layers.size(); ++k) {
    if (config_.layers[k].sparse) sparse += kinds_[k].count;
  }
  if (engine_.splits_experts && on_card_ && sparse > 0) {
    made.layer_experts = weights_[FitPart::kExperts] / sparse;
  }
  return made;
}

}  // namespace fettle::chain
