// SPDX-License-Identifier: Apache-2.0
// What the families' config.json files have in common. A family passes its own
// defaults: a key that is absent means what the family's configuration class
// in transformers says.
#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "model/family/config_values.h"
#include "model/family/model_config.h"

namespace fettle::model {

struct CommonDefaults {
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::optional<std::int64_t> kv_heads = {};  // none: as many as heads
  std::int64_t max_position = 0;
  double norm_eps = 1e-6;
  std::vector<std::int64_t> eos_token_ids = {};
  bool tie_word_embeddings = false;
  // Options that the family reads itself, where others must leave them alone.
  std::vector<std::string_view> own_options = {};
};

// Sizes, norms, tying, end tokens, head counts, and as many layers, still
// empty. Refuses options of other families that Fettle does not know and that
// change the forward pass.
ModelConfig parse_common(
    const JsonObject& json, const CommonDefaults& defaults);

struct GqaDefaults {
  double theta = 10000.0;
  std::optional<std::int64_t> head_dim = {};  // none: hidden size / heads
  std::optional<double> partial_rotary = {};  // see RopeDefaults
};

// Adds the width of GQA's heads and the rotary options.
void parse_gqa(
    const JsonObject& json, const GqaDefaults& defaults, ModelConfig& config);

// The keys under which a family says how its experts look.
struct ExpertKeys {
  std::vector<std::string_view> count;  // spellings
  std::optional<std::int64_t> default_count;
  std::string_view width;
  std::int64_t default_width = 0;
  std::optional<std::int64_t> default_top_k;  // none: required
  std::vector<std::string_view> top_k = {"num_experts_per_tok"};  // spellings
};

// A sparse layer as all of the family's are; dense where there are 0 experts.
LayerConfig parse_experts(const JsonObject& json, const ExpertKeys& keys);

// Which layers are sparse, by `decoder_sparse_step` and `mlp_only_layers`; the
// others get a dense MLP of `intermediate_size`.
void place_experts_by_step(
    const JsonObject& json,
    const LayerConfig& sparse,
    std::int64_t default_dense_width,
    ModelConfig& config);

// The window that `sliding_window` gives; 0 where it is null. Absent:
// `fallback`.
std::int64_t parse_window(const JsonObject& json, std::int64_t fallback);

// Gives the layers that `layer_types` calls sliding a window of that size, or,
// where it is absent, those of which `is_windowed` is true. Refuses
// `layer_types` that name anything else.
void parse_windows(
    const JsonObject& json,
    std::int64_t window,
    const std::function<bool(std::int64_t layer)>& is_windowed,
    ModelConfig& config);

// Refuses `layer_types` that disagree with the windows in `config`.
void check_layer_types(const JsonObject& json, const ModelConfig& config);

// Writes count, width and top-k under `keys` (see Family::write_uniform).
void write_experts(
    Json& json,
    const ExpertKeys& keys,
    const std::vector<std::int64_t>& count_width_top_k);

// A Family::write_uniform that writes under the keys of one family.
template <ExpertKeys (*kKeys)()>
void write_experts_by(
    Json& json, std::int64_t experts, std::int64_t width, std::int64_t top_k) {
  write_experts(json, kKeys(), {experts, width, top_k});
}

}  // namespace fettle::model
