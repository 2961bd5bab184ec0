// SPDX-License-Identifier: Apache-2.0
#include "sweep/plan_sizes.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "model/layers/layer_state.h"
#include "model/weights/loaded_bytes.h"
#include "sweep/head.h"

namespace fettle::sweep {
namespace {

// Of what a thread converts on the way to an expert.
constexpr std::int64_t kExpertStaging = std::int64_t{16} << 20;

std::int64_t bytes_of(at::ScalarType type) {
  return static_cast<std::int64_t>(at::elementSize(type));
}

// Values alive at once per token in a layer's mixer: heads, or what a
// convolution and a recurrence take; this keeps states between chunks.
std::int64_t mixer_values(
    const model::ModelConfig& config, const model::LayerConfig& layer) {
  constexpr std::int64_t kChunk = 64;
  switch (layer.mixer) {
    case model::MixerKind::kAttention: {
      const model::AttentionConfig& a = config.attention_of(layer);
      return a.heads * (a.head_dim * 4 + a.v_head_dim * 2);
    }
    case model::MixerKind::kShortConv:
      return 6 * config.hidden_size;
    case model::MixerKind::kGatedDelta: {
      const model::GatedDeltaConfig& d = config.gated_delta;
      return 4 * d.channels() + 6 * d.value_size() +
             d.value_size() * d.key_dim / kChunk;
    }
    case model::MixerKind::kMamba: {
      const model::MambaConfig& m = config.mamba;
      return 4 * m.channels() + 8 * m.inner_size() +
             m.inner_size() * m.state_dim / kChunk;
    }
    case model::MixerKind::kNone:
      break;
  }
  return 0;
}

// Values alive at once per token while a micro-batch passes a layer: the
// residual stream and its norms, the heads, and the chosen experts' rows: on a
// card those of all experts at once. A backward pass keeps the recomputed
// forward's and adds their gradients.
std::int64_t working_values(
    const model::ModelConfig& config, const Workload& workload) {
  const bool together = !workload.device.is_cpu() && !workload.backward;
  const std::int64_t kept = workload.backward || together ? 3 : 1;
  const std::int64_t rows = together ? 2 : 1;
  std::int64_t widest = 0;
  for (const auto& layer : config.layers) {
    std::int64_t width = layer.dense_width + layer.shared_width;
    std::int64_t expert = 0;
    for (const std::int64_t w : layer.expert_widths) {
      expert = std::max(expert, w);
    }
    width += layer.top_k * expert;
    widest = std::max(
        widest, rows * layer.top_k * config.hidden_size + kept * width);
  }
  std::int64_t mixer = 0;
  for (const auto& layer : config.layers) {
    mixer = std::max(mixer, mixer_values(config, layer));
  }
  // The residual stream and norms; those of branches, and of MLPs side by side.
  const bool beside = std::ranges::any_of(
      config.layers, &model::LayerConfig::has_dense_beside_experts);
  const std::int64_t rows_of_hidden =
      10 + (config.block.out_norms ? 4 : 0) + (beside ? 6 : 0);
  const std::int64_t forward =
      rows_of_hidden * config.hidden_size + mixer + widest;
  return workload.backward ? 5 * forward / 2 : forward;
}

}  // namespace

std::int64_t bytes_per_token(
    const model::ModelConfig& config, const Workload& workload) {
  return working_values(config, workload) * bytes_of(workload.compute_type);
}

std::int64_t logit_bytes(const model::ModelConfig& config, std::int64_t rows) {
  const bool capped = config.ends.soft_cap > 0.0;
  return (capped ? 4 : 3) * rows * config.vocab_size * 4;
}

std::int64_t boundary_bytes(
    const model::ModelConfig& config, const Workload& workload) {
  const std::int64_t one =
      workload.tokens * config.hidden_size * bytes_of(workload.compute_type);
  return (workload.backward ? config.num_layers() + 1 : 2) * one;
}

Sizes sizes_of(
    const model::ModelConfig& config,
    const model::WeightForms& forms,
    const Workload& workload,
    const Kept& kept) {
  const auto type = workload.compute_type;
  Sizes s{};
  const model::LoadedBytes loaded =
      model::loaded_bytes(config, forms, type, kept.experts_apart);
  const model::GlobalBytes globals = model::global_bytes(
      config, forms, type, workload.keep_packed && workload.device.is_cpu());
  s.globals = kept.globals ? globals.all : globals.norm;
  std::int64_t fetched = 0;
  std::int64_t in_use = 0;
  std::int64_t unpacked = 0;  // beside what is kept packed
  std::int64_t expert = 0;
  for (const auto& [bytes, dense, largest] : loaded.layers) {
    expert = std::max(expert, largest);
    fetched = std::max(fetched, bytes);
    in_use = std::max(in_use, dense == bytes ? bytes : bytes + dense);
    unpacked += dense == bytes ? 0 : dense;
    s.all_layers += bytes;
  }
  // And what reading stages at most.
  s.layers = (workload.keep_packed ? fetched : in_use) + fetched / 8;
  s.ahead = fetched;
  if (!workload.device.is_cpu()) {
    s.staging = model::staging_bytes(config, forms, type);
  }
  s.per_token = bytes_per_token(config, workload);
  s.cache = workload.cached_sequences *
            model::state_bytes(config, workload.cached_tokens, type);
  if (!workload.headless) {
    s.head = logit_bytes(
                 config,
                 workload.logit_rows > 0 ? workload.logit_rows
                                         : head_rows(config.vocab_size)) +
             (kept.globals ? 0 : globals.head);
  }
  if (kept.experts_apart) {
    // Threads keep the memory of an expert for the next.
    const std::int64_t experts =
        at::get_num_threads() * (expert + kExpertStaging);
    s.layers += experts;
    s.head += experts;
  }
  s.activations = boundary_bytes(config, workload);
  s.stage = workload.extra_bytes +
            (kept.experts_apart ? 0 : workload.extra_whole_bytes);
  // Five halves of what autograd saves are at work in a backward pass.
  s.graphs = workload.tokens * config.num_layers() * s.per_token * 2 / 5 +
             workload.extra_graph_bytes + unpacked;
  return s;
}

}  // namespace fettle::sweep
