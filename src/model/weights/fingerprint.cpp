// SPDX-License-Identifier: Apache-2.0
// What tells models apart: what config.json says of the computation, and of
// each weight its type, shape, and the first and last 64 KiB of its values.
// How files are laid out, names of shards and stacks, and keys of config.json
// that the computation does not ask for have no part in it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "io/checksum.h"
#include "model/weights/model_reader.h"
#include "model/weights/stacked_rows.h"
#include "model/weights/weight_index.h"

namespace fettle::model {

namespace {

constexpr std::uint64_t kSample = 64 << 10;

Json attention_json(const AttentionConfig& a) {
  Json json = {
      static_cast<int>(a.kind),
      a.heads,
      a.kv_heads,
      a.head_dim,
      a.v_head_dim,
      a.qkv_bias,
      a.o_bias,
      static_cast<int>(a.qk_norm),
      a.clip_qkv.value_or(0.0),
      a.softmax_scale,
      a.q_lora_rank,
      a.kv_lora_rank,
      a.qk_nope_head_dim};
  const Json later = {static_cast<int>(a.gate), a.v_norm, a.k_as_v};
  if (later != Json{0, false, false}) json.push_back(later);
  if (a.sinks) json.push_back("sinks");
  return json;
}

Json rope_json(const RopeConfig& r) {
  Json json = {
      r.type,
      r.theta,
      r.factor,
      r.dim,
      r.max_position,
      r.original_max_position,
      r.attention_factor.value_or(0.0),
      r.beta_fast,
      r.beta_slow,
      r.mscale.value_or(0.0),
      r.mscale_all_dim.value_or(0.0),
      r.truncate,
      r.low_freq_factor,
      r.high_freq_factor,
      r.short_factor,
      r.long_factor,
      static_cast<int>(r.pairing)};
  if (r.angles != 0) json.push_back(r.angles);
  return json;
}

Json router_json(const RouterConfig& r) {
  Json json = {
      static_cast<int>(r.score),
      r.renormalize,
      r.groups,
      r.topk_groups,
      static_cast<int>(r.group_score),
      r.scale,
      r.correction_bias};
  // What came later has a part only where it says something: models keep the
  // fingerprint that they had.
  const Json later = {
      static_cast<int>(r.outside_groups), r.least_sum, r.added_sum};
  if (later != Json{0, 0.0, 0.0}) json.push_back(later);
  if (r.own_norm || r.expert_scales) {
    json.push_back({r.own_norm, r.expert_scales});
  }
  return json;
}

Json layer_json(const LayerConfig& l) {
  return {
      l.sparse,
      l.dense_width,
      l.top_k,
      l.expert_widths,
      l.has_constants,
      l.shared_width,
      l.condensers,
      l.router_bias,
      l.sliding_window};
}

// With more kinds of attention than one, they and their layers come last, so
// that the fingerprints of other models stay what they were.
void add_attentions(const ModelConfig& config, Json& json) {
  if (config.attentions.size() == 1) return;
  Json kinds = Json::array();
  for (const AttentionConfig& a : config.attentions) {
    kinds.push_back({attention_json(a), rope_json(a.rope)});
  }
  Json layers = Json::array();
  for (const LayerConfig& l : config.layers) layers.push_back(l.attention);
  json.push_back(std::move(kinds));
  json.push_back(std::move(layers));
}

// What a model does around its attention and MLPs, where it does anything.
void add_block(const ModelConfig& config, Json& json) {
  const BlockConfig& b = config.block;
  const EndsConfig& e = config.ends;
  const Json block = {b.out_norms, b.residual_multiplier, b.layer_scalar};
  const Json ends = {
      e.embedding_multiplier,
      e.rounds_embedding_multiplier,
      e.logits_scaling,
      e.soft_cap};
  if (block == Json{false, 1.0, false} && ends == Json{1.0, false, 1.0, 0.0}) {
    return;
  }
  json.push_back({"block", block, ends});
}

Json computation_of(const ModelConfig& c) {
  Json layers = Json::array();
  for (const LayerConfig& layer : c.layers) layers.push_back(layer_json(layer));
  Json json = {
      c.family,
      c.vocab_size,
      c.hidden_size,
      c.norm_eps,
      c.latent_norm_eps,
      c.tie_word_embeddings,
      static_cast<int>(c.shared_expert),
      attention_json(c.attention()),
      rope_json(c.attention().rope),
      router_json(c.router),
      std::move(layers)};
  add_attentions(c, json);
  if (c.activation != Activation::kSilu) {
    json.push_back({"activation", static_cast<int>(c.activation)});
  }
  if (c.expert_bias) json.push_back("expert_bias");
  add_block(c, json);
  return json;
}

// All bytes of a weight.
std::vector<StoredSpan> spans_of(
    const ModelConfig& config,
    const WeightIndex::Place& place,
    const WeightId& id) {
  if (place.form != nullptr) return place.form->spans();
  const std::int64_t rows = weight_shape(config, id).front();
  const std::int64_t cols = rows > 0 ? weight_numel(config, id) / rows : 0;
  return {{place.tensor, place.offset, plain_extent(place, rows, cols)}};
}

}  // namespace

std::string ModelReader::fingerprint() const {
  io::Hasher hasher;
  hasher.update(computation_of(config_).dump());
  std::vector<std::byte> bytes;
  const auto add =
      [&](const StoredSpan& span, std::uint64_t begin, std::uint64_t end) {
        bytes.resize(end - begin);
        checkpoint_->read_range(span.tensor->name, span.offset + begin, bytes);
        hasher.update(bytes);
      };
  for (const WeightId& id : model_weights(config_)) {
    const auto shape = weight_shape(config_, id);
    for (const StoredSpan& span : spans_of(config_, index_->at(id), id)) {
      hasher.update(fmt::format(
          "{} {} [{}] {};",
          row_name(config_, id),
          io::name_of(span.tensor->dtype),
          fmt::join(shape, ","),
          span.bytes));
      const std::uint64_t head = std::min(span.bytes, kSample);
      add(span, 0, head);
      add(span,
          std::max(head, span.bytes - std::min(span.bytes, kSample)),
          span.bytes);
    }
  }
  return hasher.digest();
}

}  // namespace fettle::model
