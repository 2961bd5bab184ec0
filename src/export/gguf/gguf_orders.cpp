// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_orders.h"

#include "export/gguf/gguf_names.h"

namespace fettle::exporter {
namespace {

using model::GatedDeltaConfig;
using model::ModelConfig;
using model::Role;
using model::WeightId;

at::Tensor range(std::int64_t begin, std::int64_t end) {
  return at::arange(begin, end, at::kLong);
}

// For row i of the file, the row of the weight: rotary pairs, half a head apart
// in checkpoints, are neighbours.
at::Tensor paired_rows(std::int64_t rows, std::int64_t heads) {
  return range(0, rows)
      .view({heads, 2, rows / heads / 2})
      .transpose(1, 2)
      .reshape({-1});
}

// Value heads of one key head are neighbours in checkpoints; here each stands a
// round of all key heads behind the one before. [Hv], times `dim` values each.
at::Tensor tiled_heads(const GatedDeltaConfig& d, std::int64_t dim) {
  return range(0, d.value_heads * dim)
      .view({d.key_heads, -1, dim})
      .transpose(0, 1)
      .reshape({-1});
}

// Channels of queries and keys as they are, then the values'.
at::Tensor tiled_channels(const GatedDeltaConfig& d) {
  return at::cat(
      {range(0, 2 * d.key_size()),
       tiled_heads(d, d.value_dim) + 2 * d.key_size()});
}

GgufOrder tiled(const ModelConfig& config, Role role) {
  const GatedDeltaConfig& d = config.gated_delta;
  switch (role) {
    case Role::kDeltaQkv:
    case Role::kConvWeight:
      return {.rows = tiled_channels(d)};
    case Role::kDeltaGate:
      return {.rows = tiled_heads(d, d.value_dim)};
    case Role::kDeltaBeta:
    case Role::kDeltaDecay:
      return {.rows = tiled_heads(d, 1)};
    case Role::kDeltaLogRate:
    case Role::kDeltaDecayBias:
      return {.columns = tiled_heads(d, 1), .run = 1};
    case Role::kDeltaOut:
      return {.columns = tiled_heads(d, d.value_dim), .run = d.value_dim};
    default:
      return {};
  }
}

// Rows of in_proj_qkvz, which holds for each key head its query, its key, the
// values and the gates of its value heads: those of queries, keys and values,
// and those of gates.
std::vector<GgufPlace> ungrouped(
    const ModelConfig& config, const WeightId& id) {
  const GatedDeltaConfig& d = config.gated_delta;
  const std::int64_t values = d.value_size() / d.key_heads;
  const auto parts =
      range(0, 2 * (d.key_size() + d.value_size()))
          .view({d.key_heads, -1})
          .split_with_sizes({d.key_dim, d.key_dim, values, values}, 1);
  const auto flat = [&](int part) { return parts[part].reshape({-1}); };
  return {
      {model::expand_name("blk.{l}.attn_qkv.weight", id),
       {.rows = at::cat({flat(0), flat(1), flat(2)})}},
      {model::expand_name("blk.{l}.attn_gate.weight", id), {.rows = flat(3)}}};
}

bool is_offset_norm(Role role) {
  return role == Role::kInputNorm || role == Role::kPostAttentionNorm ||
         role == Role::kQNorm || role == Role::kKNorm ||
         role == Role::kFinalNorm;
}

GgufOrder order_of(
    const ModelConfig& config, const GgufFamily& family, const WeightId& id) {
  GgufOrder order;
  if (family.pairs_rotary &&
      (id.role == Role::kQProj || id.role == Role::kKProj)) {
    const bool query = id.role == Role::kQProj;
    order.rows = paired_rows(
        model::weight_shape(config, id)[0],
        query ? config.attention().heads : config.attention().kv_heads);
  }
  if (family.tiles_heads) order = tiled(config, id.role);
  if (is_offset_norm(id.role)) order.added = config.norm_offset;
  order.minus_exp =
      id.role == Role::kDeltaLogRate || id.role == Role::kMambaLogRate;
  return order;
}

}  // namespace

std::vector<GgufPlace> gguf_places(
    const ModelConfig& config, const GgufFamily& family, const WeightId& id) {
  if (id.role == Role::kDeltaQkvGate) return ungrouped(config, id);
  return {{gguf_name(family, id), order_of(config, family, id)}};
}

at::Tensor ordered(const GgufOrder& order, const at::Tensor& values) {
  at::Tensor result = values;
  if (order.rows.defined()) result = result.index_select(0, order.rows);
  if (order.columns.defined()) result = result.index_select(1, order.columns);
  if (order.added != 0.0) result = result.to(at::kFloat) + order.added;
  if (order.minus_exp) result = result.to(at::kFloat).exp().neg();
  return result;
}

}  // namespace fettle::exporter
