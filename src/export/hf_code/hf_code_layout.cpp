// SPDX-License-Identifier: Apache-2.0
#include "export/hf_code/hf_code_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include "artifact/tensor_file.h"
#include "artifact/written_tensors.h"
#include "core/error.h"
#include "model/family/text_part.h"
#include "model/family/weight_table.h"

namespace fettle {
extern const std::string_view hf_code_py;
}

namespace fettle::exporter {
namespace {

using model::Role;
using model::WeightId;

constexpr std::string_view kExperts = "experts.";

bool is_of_expert(const WeightId& id) {
  return model::role_info(id.role).scope == model::RoleScope::kExpert;
}

// `pattern` up to "experts.", without it.
std::string_view block_of(std::string_view pattern) {
  const std::size_t end = pattern.find(kExperts);
  FETTLE_ASSERT(end != std::string_view::npos);
  return pattern.substr(0, end);
}

std::string_view stack_pattern(const model::WeightRow& row) {
  return row.fused_alias.empty() ? row.fused : row.fused_alias;
}

// The beginning of the names of a layer's router and experts, in files and in
// the memory of transformers.
std::pair<std::string_view, std::string_view> blocks(
    const model::ModelConfig& config) {
  const model::WeightRow& row = model::weight_row(config, Role::kExpertDown);
  return {block_of(row.name), block_of(stack_pattern(row))};
}

std::string in_place(
    const model::ModelConfig& config,
    std::string_view pattern,
    const WeightId& id) {
  const std::string name = model::expand_name(pattern, id);
  return model::has_text_part(config.json)
             ? model::placed_name(config.names, name)
             : name;
}

std::string loaded_name(const model::ModelConfig& config, const WeightId& id) {
  const model::WeightRow& row = model::weight_row(config, id.role);
  std::string pattern(row.alias.empty() ? row.name : row.alias);
  if (id.role == Role::kExpertConstant) {
    pattern = std::string(blocks(config).second) + "experts.constant";
  } else if (row.own) {
    const auto [stored, loaded] = blocks(config);
    FETTLE_ASSERT(pattern.starts_with(stored));
    pattern.replace(0, stored.size(), loaded);
  }
  return in_place(config, pattern, id);
}

// The experts of each width but 0, ascending.
std::map<std::int64_t, std::vector<std::int64_t>> groups_of(
    const model::LayerConfig& layer) {
  std::map<std::int64_t, std::vector<std::int64_t>> groups;
  for (std::int64_t e = 0; e < layer.num_experts(); ++e) {
    if (layer.expert_widths[e] > 0) groups[layer.expert_widths[e]].push_back(e);
  }
  return groups;
}

struct ExpertPart {
  std::vector<Role> roles;  // side by side in one piece
  std::string_view name;
};

std::vector<ExpertPart> expert_parts(const model::ModelConfig& config) {
  using enum Role;
  if (model::inputs_of(config.activation) == 1) {
    return {{{kExpertUp}, "up_proj"}, {{kExpertDown}, "down_proj"}};
  }
  std::vector<ExpertPart> parts{{{kExpertGate, kExpertUp}, "gate_up_proj"}};
  if (config.expert_bias) {
    parts.push_back({{kExpertGateBias, kExpertUpBias}, "gate_up_proj_bias"});
  }
  parts.push_back({{kExpertDown}, "down_proj"});
  return parts;
}

void add_experts(
    const model::ModelConfig& config,
    const model::WeightForms& form,
    std::int64_t l,
    std::vector<HfCodeTensor>& tensors) {
  const std::string begin =
      in_place(config, blocks(config).second, {Role::kExpertDown, l});
  std::int64_t group = 0;
  for (const auto& [width, experts] : groups_of(config.layers[l])) {
    for (const ExpertPart& part : expert_parts(config)) {
      HfCodeTensor tensor;
      for (const std::int64_t e : experts) {
        auto& piece = tensor.pieces.emplace_back();
        for (const Role role : part.roles) piece.push_back({role, l, e});
      }
      const WeightId& first = tensor.pieces.front().front();
      std::vector<std::int64_t> shape = model::weight_shape(config, first);
      shape.front() *= std::ssize(part.roles);
      shape.insert(shape.begin(), std::ssize(experts));
      const std::string name =
          fmt::format("{}experts.groups.{}.{}", begin, group, part.name);
      tensor.spec = {
          name, artifact::stored_type(form(first).dtype, name), shape};
      tensors.push_back(std::move(tensor));
    }
    ++group;
  }
}

// As transformers names the whole model.
std::string stock_type(const model::ModelConfig& config) {
  return model::has_text_part(config.json)
             ? config.json.at("model_type").get<std::string>()
             : config.family;
}

std::string_view score_name(model::RouterScore score) {
  using enum model::RouterScore;
  if (score == kSigmoid) return "sigmoid";
  return score == kSoftmaxThenTopk ? "softmax" : "topk-then-softmax";
}

Json router_json(const model::RouterConfig& router) {
  return {
      {"score", score_name(router.score)},
      // Of routers that have a norm, transformers gives no logits out.
      {"gives_probabilities", router.own_norm},
      {"renormalize", router.renormalize},
      {"groups", router.groups},
      {"topk_groups", router.topk_groups},
      {"group_score",
       router.group_score == model::GroupScore::kMax ? "max" : "top-two-sum"},
      {"outside",
       router.outside_groups == model::OutsideGroups::kZero ? "0" : "-inf"},
      {"least_sum", router.least_sum},
      {"added_sum", router.added_sum},
      {"scale", router.scale}};
}

Json layer_json(
    const model::ModelConfig& config, const model::LayerConfig& layer) {
  if (!layer.sparse) return nullptr;
  return {
      {"top_k", layer.top_k},
      {"expert_widths", layer.expert_widths},
      {"has_constants", layer.has_constants},
      {"condensers", layer.condensers},
      {"router_bias", model::adds_own(config, layer, Role::kRouterBias)}};
}

// The family's own keys say the number of experts and top_k where that is one
// in all layers: losses for the balance of routers read them. The width stays
// the source's, since some families count shared experts in it.
void write_counts(const model::ModelConfig& config, Json& json) {
  const model::LayerConfig* first = nullptr;
  for (const model::LayerConfig& layer : config.layers) {
    if (!layer.sparse) continue;
    if (first == nullptr) first = &layer;
    if (layer.num_experts() != first->num_experts() ||
        layer.top_k != first->top_k) {
      return;
    }
  }
  if (first == nullptr) return;
  const model::ModelConfig stock =
      model::parse_model_config(json, "config.json");
  const auto layer = std::ranges::find_if(
      stock.layers, [](const model::LayerConfig& l) { return l.sparse; });
  model::find_family(config.family)
      .write_uniform(
          model::text_part(json),
          first->num_experts(),
          layer->expert_widths.front(),
          first->top_k);
}

}  // namespace

void require_hf_code(const model::ModelConfig& config) {
  if (!model::has_text_part(config.json)) return;
  // Of other models transformers converts every name.
  if (config.names == model::TensorNames{"model.language_model.", ""}) return;
  throw UserError(
      "export",
      fmt::format("model_type '{}'", stock_type(config)),
      fmt::format(
          "holds its language model under '{}', for which format hf-code has "
          "no code; use ragged, or hf-padded",
          config.names.body));
}

std::vector<HfCodeTensor> hf_code_tensors(
    const model::ModelConfig& config, const model::WeightForms& form) {
  std::vector<HfCodeTensor> tensors;
  std::int64_t with_experts = -1;  // the last layer whose experts are there
  for (const artifact::WrittenTensor& written :
       artifact::written_tensors(config, {.form = form, .stock = true})) {
    const WeightId& first = written.pieces.front().front();
    if (is_of_expert(first)) {
      if (first.layer != with_experts) {
        add_experts(config, form, first.layer, tensors);
      }
      with_experts = first.layer;
      continue;
    }
    HfCodeTensor tensor{written.specs.front(), written.pieces};
    tensor.spec.name =
        written.stacked
            ? in_place(
                  config,
                  stack_pattern(model::weight_row(config, first.role)),
                  first)
            : loaded_name(config, first);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

at::Tensor hf_code_piece(
    const model::ModelConfig& config,
    const std::vector<WeightId>& piece,
    const std::vector<at::Tensor>& weights) {
  const model::WeightRow& row = model::weight_row(config, piece.front().role);
  return artifact::stacked_outputs(row, weights).contiguous();
}

Json hf_code_config(const model::ModelConfig& config) {
  Json json = config.json;
  json.erase("fettle");
  write_counts(config, json);
  json["model_type"] = "fettle_" + stock_type(config);
  json["architectures"] = {"FettleForCausalLM"};
  json["auto_map"] = {
      {"AutoConfig", "modeling_fettle.FettleConfig"},
      {"AutoModelForCausalLM", "modeling_fettle.FettleForCausalLM"}};
  if (model::has_text_part(json)) {
    json["auto_map"]["AutoModelForImageTextToText"] =
        "modeling_fettle.FettleForCausalLM";
  }
  Json layers = Json::array();
  for (const model::LayerConfig& layer : config.layers) {
    layers.push_back(layer_json(config, layer));
  }
  json["fettle_experts"] = {
      {"router", router_json(config.router)}, {"layers", std::move(layers)}};
  return json;
}

std::string hf_code_module(const model::ModelConfig& config) {
  constexpr std::string_view kPlace = "@MODEL_TYPE@";
  std::string text(hf_code_py);
  for (std::size_t at = 0; (at = text.find(kPlace, at)) != std::string::npos;) {
    text.replace(at, kPlace.size(), stock_type(config));
  }
  return text;
}

}  // namespace fettle::exporter
