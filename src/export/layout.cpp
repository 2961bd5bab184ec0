// SPDX-License-Identifier: Apache-2.0
// Which models each layout can hold.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/error.h"
#include "export/export.h"

namespace fettle::exporter {
namespace {

constexpr std::array<std::pair<Format, std::string_view>, 3> kNames{{
    {Format::kHf, "hf"},
    {Format::kHfPadded, "hf-padded"},
    {Format::kRagged, "ragged"},
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
    std::int64_t l, const model::LayerConfig& layer, Format format) {
  refuse(
      l,
      fmt::format(
          "has {}{}{}, for which format {} has no place; use ragged, or "
          "drop-condensers to leave the choice of all {} experts of a token to "
          "the bare router, which changes the model's outputs",
          layer.condensers.empty()
              ? ""
              : fmt::format("{} condensers", layer.condensers.size()),
          !layer.condensers.empty() && layer.router_bias ? " and " : "",
          layer.router_bias ? "a router bias" : "",
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
            "expert {} has {} neurons where the first has {}; use hf-padded or "
            "ragged",
            e,
            layer.expert_widths[e],
            width));
  }
}

void set_widths(model::ModelConfig& config, std::int64_t width) {
  for (model::LayerConfig& layer : config.layers) {
    std::ranges::fill(layer.expert_widths, width);
  }
}

// Whether the family's own keys tell all of the model.
bool is_stock(const model::ModelConfig& config) {
  return !model::config_json(config).contains("fettle");
}

// The least width from `widest` on that the family's keys can tell: where they
// count the shared experts in units of it, it must divide their width.
std::int64_t padded_width(model::ModelConfig config, std::int64_t widest) {
  std::int64_t limit = widest;
  for (const model::LayerConfig& layer : config.layers) {
    limit = std::max(limit, layer.shared_width);
  }
  for (std::int64_t width = widest; width <= limit; ++width) {
    set_widths(config, width);
    if (is_stock(config)) return width;
  }
  return widest;
}

void set_dtype(Json& json, at::ScalarType dtype) {
  const char* const name =
      dtype == at::kFloat ? "float32"
                          : (dtype == at::kBFloat16 ? "bfloat16" : "float16");
  json[json.contains("torch_dtype") ? "torch_dtype" : "dtype"] = name;
}

}  // namespace

Format parse_format(std::string_view name) {
  for (const auto& [format, known] : kNames) {
    if (known == name) return format;
  }
  throw UserError(
      "export", name, "no such format; the known are hf, hf-padded, ragged");
}

std::string_view format_name(Format format) {
  for (const auto& [known, name] : kNames) {
    if (known == format) return name;
  }
  throw InternalError("a format without a name");
}

model::ModelConfig exported_config(
    const model::ModelConfig& config, const ExportOptions& options) {
  model::ModelConfig result = config;
  if (options.dtype) set_dtype(result.json, *options.dtype);
  if (options.drop_constants) {
    for (model::LayerConfig& layer : result.layers) {
      layer.has_constants = false;
    }
  }
  if (options.drop_condensers) {
    for (model::LayerConfig& layer : result.layers) {
      layer.condensers.clear();
      layer.router_bias = false;
    }
  }
  if (options.format == Format::kRagged) return result;

  const auto first = std::ranges::find_if(
      result.layers, [](const model::LayerConfig& l) { return l.sparse; });
  if (first == result.layers.end()) return result;
  std::int64_t widest = 1;
  for (std::int64_t l = 0; l < result.num_layers(); ++l) {
    const model::LayerConfig& layer = result.layers[l];
    if (!layer.sparse) continue;
    if (layer.has_constants) refuse_constants(l, options.format);
    if (layer.router_bias || !layer.condensers.empty()) {
      refuse_condensers(l, layer, options.format);
    }
    check_counts(l, layer, *first);
    if (options.format == Format::kHf) {
      check_widths(l, layer, first->expert_widths.front());
    }
    widest = std::max(widest, std::ranges::max(layer.expert_widths));
  }
  if (options.format == Format::kHf && first->expert_widths.front() == 0) {
    refuse(
        first - result.layers.begin(),
        "expected experts with neurons, found none in the model; use ragged");
  }
  if (options.format == Format::kHfPadded) {
    widest = padded_width(result, widest);
    set_widths(result, widest);
  }
  if (!is_stock(result)) {
    refuse(
        first - result.layers.begin(),
        fmt::format(
            "config.json of family {} can't tell experts of {} neurons beside "
            "the shared experts' width; use hf-padded or ragged, or trim to "
            "another width",
            config.family,
            widest));
  }
  return result;
}

}  // namespace fettle::exporter
