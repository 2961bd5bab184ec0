// SPDX-License-Identifier: Apache-2.0
// Which models each layout can hold.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/error.h"
#include "export/export.h"
#include "export/hf_code/hf_code_layout.h"
#include "export/stock_layout.h"
#include "model/family/text_part.h"
#include "model/family/weight_table.h"

namespace fettle::exporter {
namespace {

using model::Role;

constexpr std::int64_t kOne = 1;

constexpr std::array<std::pair<Format, std::string_view>, 7> kNames{{
    {Format::kHf, "hf"},
    {Format::kHfPadded, "hf-padded"},
    {Format::kHfCode, "hf-code"},
    {Format::kRagged, "ragged"},
    {Format::kCompressedTensors, "compressed-tensors"},
    {Format::kGptq, "gptq"},
    {Format::kGguf, "gguf"},
}};

[[noreturn]] void refuse(std::int64_t layer, const std::string& why) {
  throw UserError("export", fmt::format("layer {}", layer), why);
}

void refuse_constants(std::int64_t l, Format format) {
  refuse(
      l,
      fmt::format(
          "has constant expert outputs, for which format {} has no place; use "
          "ragged, or drop-constants to lose them",
          format_name(format)));
}

void refuse_condensers(
    std::int64_t l, const model::LayerConfig& layer, bool bias, Format format) {
  refuse(
      l,
      fmt::format(
          "has {}{}{}, for which format {} has no place; use ragged, or "
          "drop-condensers to leave the choice of all {} experts of a token to "
          "the bare router, which changes the model's outputs",
          layer.condensers.empty()
              ? ""
              : fmt::format("{} condensers", layer.condensers.size()),
          !layer.condensers.empty() && bias ? " and " : "",
          bias ? "a router bias" : "",
          format_name(format),
          layer.top_k));
}

// Whole experts can't be padded: a router without bias gives any row that is
// added a share of every token.
void check_counts(
    std::int64_t l,
    const model::LayerConfig& layer,
    const model::LayerConfig& first) {
  if (layer.num_experts() != first.num_experts()) {
    refuse(
        l,
        fmt::format(
            "expected {} experts as in the first sparse layer, found {}: a "
            "missing expert can't be padded, since a router without bias would "
            "send tokens to it; use ragged",
            first.num_experts(),
            layer.num_experts()));
  }
  if (layer.top_k != first.top_k) {
    refuse(
        l,
        fmt::format(
            "expected top_k {} as in the first sparse layer, found {}; use "
            "ragged",
            first.top_k,
            layer.top_k));
  }
}

void check_widths(
    std::int64_t l, const model::LayerConfig& layer, std::int64_t width) {
  for (std::int64_t e = 0; e < layer.num_experts(); ++e) {
    if (layer.expert_widths[e] == width) continue;
    refuse(
        l,
        fmt::format(
            "expert {} has {} neurons where the first has {}; trim with --for "
            "hf (or --widths uniform), or use hf-padded or ragged",
            e,
            layer.expert_widths[e],
            width));
  }
}

// Layout hf: every expert has `width` neurons, and some.
void check_alike(const model::ModelConfig& config, std::int64_t width) {
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    if (!config.layers[l].sparse) continue;
    check_widths(l, config.layers[l], width);
    if (width > 0) continue;
    refuse(
        l,
        "expected experts with neurons, found none in the model; use ragged");
  }
}

// Whether loaders multiply by experts of `width` neurons in the type that
// config.json names.
bool runs_as_stored(const model::ModelConfig& config, std::int64_t width) {
  const bool wide = model::stated_dtype(config.json) == "float32";
  return width % (wide ? kLoaderUnit / 2 : kLoaderUnit) == 0;
}

void set_widths(model::ModelConfig& config, std::int64_t width) {
  for (model::LayerConfig& layer : config.layers) {
    std::ranges::fill(layer.expert_widths, width);
  }
}

const model::LayerConfig* first_sparse(const model::ModelConfig& config) {
  const auto first = std::ranges::find_if(
      config.layers, [](const model::LayerConfig& l) { return l.sparse; });
  return first == config.layers.end() ? nullptr : &*first;
}

model::ModelConfig without_dropped(
    const model::ModelConfig& config, const ExportOptions& options) {
  model::ModelConfig result = config;
  for (model::LayerConfig& layer : result.layers) {
    if (options.drop_constants &&
        model::adds_own(config, layer, Role::kExpertConstant)) {
      layer.has_constants = false;
    }
    if (options.drop_condensers) {
      layer.condensers.clear();
      if (model::adds_own(config, layer, Role::kRouterBias))
        layer.router_bias = false;
    }
  }
  return result;
}

void set_dtype(Json& json, at::ScalarType dtype) {
  model::state_dtype(
      json,
      dtype == at::kFloat ? "float32"
                          : (dtype == at::kBFloat16 ? "bfloat16" : "float16"));
}

}  // namespace

Format parse_format(std::string_view name) {
  for (const auto& [format, known] : kNames) {
    if (known == name) return format;
  }
  std::string known;
  for (const auto& [format, one] : kNames) {
    known += (known.empty() ? "" : ", ") + std::string(one);
  }
  throw UserError("export", name, "no such format; the known are " + known);
}

std::string_view format_name(Format format) {
  for (const auto& [known, name] : kNames) {
    if (known == format) return name;
  }
  throw InternalError("a format without a name");
}

model::ModelConfig stock_config(
    const model::ModelConfig& config, const ExportOptions& options) {
  model::ModelConfig result = without_dropped(config, options);
  if (options.dtype) set_dtype(result.json, *options.dtype);
  const model::LayerConfig* const first = first_sparse(result);
  for (std::int64_t l = 0; l < result.num_layers(); ++l) {
    const model::LayerConfig& layer = result.layers[l];
    if (!layer.sparse) continue;
    if (model::adds_own(result, layer, Role::kExpertConstant)) {
      refuse_constants(l, options.format);
    }
    const bool bias = model::adds_own(result, layer, Role::kRouterBias);
    if (bias || !layer.condensers.empty()) {
      refuse_condensers(l, layer, bias, options.format);
    }
    check_counts(l, layer, *first);
  }
  return result;
}

MlpWidths widest(const model::ModelConfig& config) {
  MlpWidths widths;
  for (const model::LayerConfig& layer : config.layers) {
    widths.shared = std::max(widths.shared, layer.shared_width);
    widths.dense = std::max(widths.dense, layer.dense_width);
    if (!layer.sparse) continue;
    widths.expert =
        std::max({widths.expert, std::ranges::max(layer.expert_widths), kOne});
  }
  return widths;
}

std::int64_t rounded_up(std::int64_t n, std::int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

// Dense layers' width has one name in all families.
model::ModelConfig with_widths(
    const model::ModelConfig& config, const MlpWidths& widths) {
  model::ModelConfig result = config;
  std::int64_t shared = widths.shared;
  const model::Family& family = model::find_family(config.family);
  const bool counted = config.shared_expert == model::SharedExpert::kPlain &&
                       !family.shared_in_neurons;
  if (counted && widths.expert > 0) {
    shared = (shared + widths.expert - 1) / widths.expert * widths.expert;
  }
  set_widths(result, widths.expert);
  for (model::LayerConfig& layer : result.layers) {
    if (layer.shared_width > 0) layer.shared_width = shared;
    if (layer.dense_width > 0) layer.dense_width = widths.dense;
  }
  Json json = config.json;
  json.erase("fettle");
  Json& text = model::text_part(json);
  if (const model::LayerConfig* const sparse = first_sparse(result)) {
    family.write_uniform(
        text, sparse->num_experts(), widths.expert, sparse->top_k);
  }
  if (shared > 0) {
    text[std::string(family.shared_key)] =
        counted ? shared / widths.expert : shared;
  }
  if (widths.dense > 0) text["intermediate_size"] = widths.dense;
  if (model::parse_model_config(json, "config.json").layers != result.layers) {
    throw UserError(
        "export",
        "config.json",
        fmt::format(
            "family {} can't tell experts of {} neurons beside shared experts "
            "of {} and dense layers of {}; trim to one width in all layers",
            config.family,
            widths.expert,
            shared,
            widths.dense));
  }
  result.json = std::move(json);
  return result;
}

model::ModelConfig exported_config(
    const model::ModelConfig& config, const ExportOptions& options) {
  if (options.format == Format::kHfCode) require_hf_code(config);
  if (options.format == Format::kRagged || options.format == Format::kHfCode) {
    model::ModelConfig ragged = without_dropped(config, options);
    if (options.dtype) set_dtype(ragged.json, *options.dtype);
    return ragged;
  }
  const model::ModelConfig stock = stock_config(config, options);
  const model::LayerConfig* const first = first_sparse(stock);
  if (first == nullptr) return stock;
  MlpWidths widths = widest(stock);
  if (options.format == Format::kHf) {
    check_alike(stock, first->expert_widths.front());
    if (runs_as_stored(stock, widths.expert)) {
      return with_widths(stock, widths);
    }
  }
  widths.expert = rounded_up(widths.expert, kLoaderUnit);
  return with_widths(stock, widths);
}

}  // namespace fettle::exporter
