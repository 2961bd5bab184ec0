// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_mixers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "export/gguf/gguf_layer_kinds.h"
#include "model/family/text_part.h"

namespace fettle::exporter {
namespace {

using model::MixerKind;
using model::ModelConfig;

bool has(const ModelConfig& config, MixerKind kind) {
  return std::ranges::any_of(
      config.layers, [&](const auto& layer) { return layer.mixer == kind; });
}

bool has_mamba(std::string_view architecture) {
  return architecture == kGraniteHybridArchitecture ||
         architecture == kNemotronArchitecture;
}

// Each so manieth layer has attention.
std::int64_t attention_interval(const ModelConfig& config) {
  const auto first = std::ranges::find(
      config.layers, MixerKind::kAttention, &model::LayerConfig::mixer);
  return first - config.layers.begin() + 1;
}

bool follows(const ModelConfig& config, std::int64_t interval) {
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const bool attention = config.layers[l].mixer == MixerKind::kAttention;
    if (attention != ((l + 1) % interval == 0)) return false;
  }
  return true;
}

// Pairs of dimensions that turn by time, height and width; all turn alike in
// text.
std::vector<std::int32_t> rotary_sections(const ModelConfig& config) {
  constexpr std::int32_t kTime = 11, kHeight = 11, kWidth = 10;
  std::vector<std::int32_t> sections{kTime, kHeight, kWidth};
  const Json& text = model::text_part(config.json);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto rope = text.find(key);
    if (rope == text.end() || !rope->is_object()) continue;
    const auto given = rope->find("mrope_section");
    if (given == rope->end() || !given->is_array()) continue;
    sections.clear();  // covers nothing, if it is no list of numbers
    const auto is_number = [](const Json& n) { return n.is_number_integer(); };
    if (std::ranges::all_of(*given, is_number)) {
      sections = given->get<std::vector<std::int32_t>>();
    }
  }
  sections.resize(4);
  return sections;
}

// Whether each pair of rotated dimensions is of one of the sections, which take
// turns.
bool are_covering(
    const std::vector<std::int32_t>& sections, std::int64_t pairs) {
  const std::int64_t all = sections[0] + sections[1] + sections[2];
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const std::int64_t place = all > 0 ? pair % all : 0;
    if (place >= 3 * sections[static_cast<std::size_t>(place % 3)])
      return false;
  }
  return true;
}

std::string delta_reason(
    const ModelConfig& config, std::string_view architecture) {
  const model::GatedDeltaConfig& d = config.gated_delta;
  if (d.key_dim != d.value_dim) {
    return "'linear_value_head_dim' is not 'linear_key_head_dim'";
  }
  if (!follows(config, attention_interval(config))) {
    return "layers with attention don't come at an interval";
  }
  if (architecture == "qwen35moe" &&
      !are_covering(rotary_sections(config), config.attention().rope.dim / 2)) {
    return "'mrope_section' leaves rotated dimensions without a position";
  }
  return "";
}

std::string short_conv_reason(const ModelConfig& config) {
  if (config.short_conv.bias) return "'conv_bias' is true";
  if (!config.router.correction_bias) return "'use_expert_bias' is false";
  if (config.router.scale != 1.0) {
    return fmt::format("'routed_scaling_factor' is {}", config.router.scale);
  }
  return "";
}

std::string mamba_reason(
    const ModelConfig& config, std::string_view architecture) {
  const model::MambaConfig& m = config.mamba;
  if (architecture == kNemotronArchitecture) {
    if (m.bias) return "'use_bias' is true";
    return m.conv_bias ? "" : "'use_conv_bias' is false";
  }
  if (m.bias) return "'mamba_proj_bias' is true";
  if (!m.conv_bias) return "'mamba_conv_bias' is false";
  if (m.groups != m.norm_groups) {
    return fmt::format("'mamba_n_groups' is {}", m.groups);
  }
  if (m.least_step > 0.0 || !std::isinf(m.most_step)) {
    return "'time_step_limit' is set";
  }
  return "";
}

// What llama.cpp asks of any recurrent layer.
struct StateSizes {
  std::int64_t conv_width = 0;
  std::int64_t state_size = 0;
  std::int64_t groups = 0;
  std::int64_t heads = 0;
  std::int64_t inner_size = 0;
};

void add_state(const StateSizes& sizes, KeyList& keys) {
  keys.count("ssm.conv_kernel", sizes.conv_width);
  keys.count("ssm.state_size", sizes.state_size);
  keys.count("ssm.group_count", sizes.groups);
  keys.count("ssm.time_step_rank", sizes.heads);
  keys.count("ssm.inner_size", sizes.inner_size);
}

}  // namespace

void check_mixers(const ModelConfig& config, std::string_view architecture) {
  std::string reason;
  if (architecture == "lfm2moe") reason = short_conv_reason(config);
  if (architecture == "qwen3next" || architecture == "qwen35moe") {
    reason = delta_reason(config, architecture);
  }
  if (has_mamba(architecture)) reason = mamba_reason(config, architecture);
  if (!reason.empty()) refuse_shape(reason);
}

void add_mixers(
    const ModelConfig& config, std::string_view architecture, KeyList& keys) {
  if (has(config, MixerKind::kShortConv)) {
    keys.count("shortconv.l_cache", config.short_conv.width);
  }
  if (has(config, MixerKind::kGatedDelta)) {
    const model::GatedDeltaConfig& d = config.gated_delta;
    add_state(
        {.conv_width = d.conv_width,
         .state_size = d.key_dim,
         .groups = d.key_heads,
         .heads = d.value_heads,
         .inner_size = d.value_size()},
        keys);
    keys.count("full_attention_interval", attention_interval(config));
  }
  if (has_mamba(architecture)) {
    const model::MambaConfig& m = config.mamba;
    add_state(
        {.conv_width = m.conv_width,
         .state_size = m.state_dim,
         .groups = m.groups,
         .heads = m.heads,
         .inner_size = m.inner_size()},
        keys);
  }
  if (architecture == kGraniteHybridArchitecture) {
    // Whether attention knows positions.
    keys.put("rope.scaling.finetuned", config.attention().rope.dim > 0);
  }
  if (architecture == "qwen35moe") {
    keys.put("rope.dimension_sections", rotary_sections(config));
  }
}

}  // namespace fettle::exporter
