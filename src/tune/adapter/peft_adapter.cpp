// SPDX-License-Identifier: Apache-2.0
#include "tune/adapter/peft_adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "artifact/run_state.h"
#include "artifact/tensor_file.h"
#include "core/error.h"
#include "io/file.h"
#include "model/family/text_part.h"
#include "model/family/weight_table.h"
#include "tune/adapter/adapter.h"
#include "tune/low_rank/low_rank_delta.h"
#include "tune/options/router_options.h"

namespace fettle::tune {

namespace {

using model::Role;

constexpr std::string_view kPrefix = "base_model.model.";

[[noreturn]] void refuse(
    const std::string& expected, const std::string& found) {
  throw UserError(
      "tune",
      "peft",
      fmt::format(
          "expected {}, found {}, for which a PEFT adapter has no place; leave "
          "--peft out and merge instead",
          expected,
          found));
}

void check_layer(
    const model::ModelConfig& config,
    std::int64_t l,
    const model::LayerConfig& first) {
  const model::LayerConfig& layer = config.layers[l];
  const std::string where = fmt::format("in layer {}", l);
  if (model::adds_own(config, layer, model::Role::kExpertConstant)) {
    refuse("no constants", "some " + where);
  }
  if (!layer.condensers.empty()) refuse("no condensers", "some " + where);
  if (model::adds_own(config, layer, model::Role::kRouterBias)) {
    refuse("no router bias", "one " + where);
  }
  if (layer.num_experts() != first.num_experts()) {
    refuse(
        fmt::format("{} experts", first.num_experts()),
        fmt::format("{} {}", layer.num_experts(), where));
  }
  for (const std::int64_t width : layer.expert_widths) {
    if (width == first.expert_widths.front()) continue;
    refuse(
        fmt::format("experts of width {}", first.expert_widths.front()),
        fmt::format("one of {} {}", width, where));
  }
}

// A and B in PEFT's shapes.
struct Sides {
  at::Tensor a, b;
};

Sides sides_of(const LowRankPairs& pairs) {
  const std::int64_t rank = pairs.rank();
  const std::int64_t experts = pairs.target.matrices();
  const std::int64_t rows = pairs.target.rows() / experts;
  const std::int64_t columns = pairs.target.columns;
  const at::Tensor left = pairs.left.view({experts, rows, rank});
  const at::Tensor right = pairs.right.view({experts, rank, columns});
  const bool upright = pairs.target.upright();
  const at::Tensor a = upright ? right : left.transpose(1, 2);  // [E, r, in]
  const at::Tensor b = upright ? left : right.transpose(1, 2);  // [E, out, r]
  return {
      a.reshape({experts * rank, -1}),
      b.permute({1, 2, 0}).reshape({-1, rank * experts})};
}

// The stack of a layer's experts that transformers 5 holds in memory.
std::string stack_name(
    const model::ModelConfig& config, const model::WeightId& id) {
  const model::WeightRow& row = model::weight_row(config, id.role);
  const std::string_view stack =
      row.fused_alias.empty() ? row.fused : row.fused_alias;
  return model::placed_name(config.names, model::expand_name(stack, id));
}

// "model.layers.3.mlp.experts" of "model.layers.3.mlp.experts.down_proj".
std::string owner_of(const std::string& name) {
  return name.substr(0, name.rfind('.'));
}

// "mlp.experts" of "model.layers.3.mlp.experts".
std::string name_in_layer(const std::string& name, std::int64_t layer) {
  const std::string begin = fmt::format("layers.{}.", layer);
  return name.substr(name.find(begin) + begin.size());
}

// The module of transformers 5 that the pair stands beside.
std::string module_of(
    const LowRankTarget& target, const model::ModelConfig& config) {
  if (target.of_experts()) {
    const std::string experts =
        owner_of(stack_name(config, {target.role, target.layer}));
    return target.upright() ? experts + ".base_layer" : experts;
  }
  std::string name = model::weight_name(config, {target.role, target.layer});
  name.resize(name.rfind(".weight"));
  return name;
}

// What PEFT finds its places by: the ends of modules' and parameters' names.
struct Places {
  std::set<std::string> modules, parameters;

  void add(
      const LowRankTarget& target,
      const std::string& module,
      const model::ModelConfig& config) {
    const std::int64_t l = target.layer;
    if (target.of_experts()) {
      parameters.insert(name_in_layer(stack_name(config, {target.role, l}), l));
      return;
    }
    const std::string end = name_in_layer(module, l);
    // PEFT takes every module of the name gate_proj, up_proj or down_proj for
    // an expert's from before experts were fused; a parameter it leaves alone.
    if (model::is_mlp_role(target.role) ||
        target.role == Role::kAttentionGate) {
      parameters.insert(end + ".weight");
    } else {
      modules.insert(end);
    }
  }
};

Json config_json(
    const model::ModelReader& base,
    const AdapterInfo& info,
    const Places& places) {
  const JsonObject options(info.options, "adapter", "the adapter's options");
  Json json{
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path",
       std::filesystem::absolute(base.folder()).lexically_normal().string()},
      {"r", options.integer("rank")},
      {"lora_alpha", options.number("lora_alpha")},
      {"lora_dropout", 0.0},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"use_rslora", false},
      {"use_dora", false},
      {"init_lora_weights", true},
      {"inference_mode", true},
      {"target_modules", places.modules}};
  if (!places.parameters.empty()) {
    json["target_parameters"] = places.parameters;
  }
  return json;
}

// Model types in which PEFT refuses pairs beside a mixer's out_proj, whatever
// it is called by: peft 0.21, tuners/tuners_utils.py, mamba_model_types.
constexpr std::array<std::string_view, 5> kRefusedMixers = {
    "falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"};

void check_mixers(
    const TuneOptions& options, const model::ModelConfig& config) {
  if (options.lora_targets.find("attention") == std::string::npos) return;
  if (std::ranges::find(kRefusedMixers, config.family) ==
      kRefusedMixers.end()) {
    return;
  }
  throw UserError(
      "tune",
      "peft",
      fmt::format(
          "PEFT takes no pairs beside 'out_proj' in models of type {}; use "
          "--lora-targets experts, or leave --peft out and merge instead",
          config.family));
}

// Gate and up that are one matrix elsewhere have no modules of their own.
void check_modules(
    const TuneOptions& options, const model::ModelConfig& config) {
  if (options.lora_targets.find("shared") == std::string::npos) return;
  if (config.shared_expert == model::SharedExpert::kNone) return;
  if (!model::weight_row(config, model::kSharedRoles.up).stacked_only) return;
  refuse("gate and up in matrices of their own", "the shared experts' in one");
}

// What check_peft asks for of the run that left an adapter.
TuneOptions options_of(const AdapterInfo& info) {
  const JsonObject json(info.options, "tune", "adapter.json");
  TuneOptions options;
  options.method = info.method;
  options.router = json.string("router");
  options.lora_targets = json.string_or("lora_targets", "");
  return options;
}

}  // namespace

void check_peft(const TuneOptions& options, const model::ModelConfig& config) {
  for (const std::string& method : methods_of(options)) {
    if (method != "lora") refuse("the method lora alone", "also " + method);
  }
  if (trains_router(options)) refuse("frozen routers", "--router topk");
  const auto& up = model::weight_row(config, Role::kExpertUp);
  if (up.order == model::StackOrder::kInterleaved) {
    refuse("experts' gate rows before those of up", "them in turns");
  }
  check_modules(options, config);
  check_mixers(options, config);
  const model::LayerConfig* first = nullptr;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const model::LayerConfig& layer = config.layers[l];
    if (!layer.sparse) continue;
    if (first == nullptr) first = &layer;
    check_layer(config, l, *first);
  }
}

void check_peft_adapter(
    const model::ModelReader& base,
    const std::filesystem::path& adapter_folder,
    const AdapterLoadOptions& options) {
  const Adapter adapter = Adapter::load(adapter_folder, base, options);
  check_peft(options_of(adapter.info()), base.config());
}

void write_peft_adapter(
    const model::ModelReader& base,
    const std::filesystem::path& adapter_folder,
    const std::filesystem::path& out,
    const AdapterLoadOptions& options) {
  const AdapterInfo info = Adapter::load(adapter_folder, base, options).info();
  const LowRankDelta delta(
      artifact::load_tensors(adapter_folder / "adapter.safetensors").tensors,
      base.config());
  artifact::TensorFile file;
  file.metadata["format"] = "pt";
  Places places;
  for (std::int64_t l = 0; l < base.config().num_layers(); ++l) {
    for (const LowRankPairs& pairs : delta.layer(l)) {
      const std::string module = module_of(pairs.target, base.config());
      places.add(pairs.target, module, base.config());
      const Sides sides = sides_of(pairs);
      const std::string key = std::string(kPrefix) + module;
      file.tensors[key + ".lora_A.weight"] = sides.a.contiguous();
      file.tensors[key + ".lora_B.weight"] = sides.b.contiguous();
    }
  }
  io::AtomicDirectory directory(out, artifact::plain_output());
  artifact::save_tensors(directory.path() / "adapter_model.safetensors", file);
  io::write_file(
      directory.path() / "adapter_config.json",
      config_json(base, info, places).dump(2) + "\n");
  directory.commit();
}

}  // namespace fettle::tune
