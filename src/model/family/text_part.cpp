// SPDX-License-Identifier: Apache-2.0
#include "model/family/text_part.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "model/family/weight_table.h"

namespace fettle::model {
namespace {

constexpr const char* kTextKey = "text_config";
constexpr std::string_view kBody = "model.";

// Source: transformers 5.17, models/<model_type>: each puts the features of
// images in the place of their tokens' embeddings, and does nothing else to a
// sequence without images.
constexpr std::array<Wrapper, 10> kWrappers = {{
    {"gemma4", "gemma4_text", true},
    {"glm4v_moe", "glm4v_moe_text", false},
    {"internvl", "qwen2", true},
    {"kimi_k25", "deepseek_v3", true},
    {"kimi_vl", "deepseek_v3", false},
    {"llava", "llama", false},
    {"llava_next", "llama", false},
    {"llava_onevision", "qwen2", false},
    {"qwen3_5_moe", "qwen3_5_moe_text", false},
    {"qwen3_vl_moe", "qwen3_vl_moe_text", false},
}};

constexpr std::array<std::string_view, 21> kCarriedParts = {
    "model.visual.",
    "visual.",
    "model.vision_tower.",
    "vision_tower.",
    "model.vision_model.",
    "vision_model.",
    "model.embed_vision.",
    "embed_vision.",
    "model.audio_tower.",
    "audio_tower.",
    "model.embed_audio.",
    "embed_audio.",
    "model.multi_modal_projector.",
    "multi_modal_projector.",
    "model.mm_projector.",
    "mm_projector.",
    "model.projector.",
    "projector.",
    "model.image_newline",
    "image_newline",
    "mlp1."};

// Both are in use: DeepSeek and GLM write the first, Qwen the second.
constexpr std::array<const char*, 3> kMtpCounts = {
    "num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers"};

const Wrapper& find_wrapper(const JsonObject& config) {
  const std::string type = config.string("model_type");
  std::string known;
  for (const Wrapper& wrapper : kWrappers) {
    if (wrapper.model_type == type) return wrapper;
    known += (known.empty() ? "" : ", ") + std::string(wrapper.model_type);
  }
  throw UserError(
      "model",
      fmt::format("model_type '{}'", type),
      fmt::format(
          "holds a language model ('{}') in a way that Fettle does not know; "
          "it knows {}",
          kTextKey,
          known));
}

const char* dtype_key(const Json& json) {
  return json.contains("torch_dtype") ? "torch_dtype" : "dtype";
}

std::string named_dtype(const Json& json) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto found = json.find(key);
    if (found != json.end() && found->is_string()) return *found;
  }
  return "";
}

}  // namespace

std::span<const Wrapper> wrappers() { return kWrappers; }

bool has_text_part(const Json& config) {
  const auto found = config.find(kTextKey);
  return found != config.end() && found->is_object();
}

const Json& text_part(const Json& config) {
  return has_text_part(config) ? config.at(kTextKey) : config;
}

Json& text_part(Json& config) {
  return has_text_part(config) ? config.at(kTextKey) : config;
}

Json text_config(const JsonObject& config) {
  if (!has_text_part(config.json())) return config.json();
  const Wrapper& wrapper = find_wrapper(config);
  Json text = config.at(kTextKey);
  if (!text.contains("model_type")) text["model_type"] = wrapper.text_type;
  // The same model, as its own code calls it.
  if (text["model_type"] == "kimi_k2") text["model_type"] = "deepseek_v3";
  if (config.has("quantization_config")) {
    text["quantization_config"] = config.at("quantization_config");
  }
  constexpr const char* kTied = "tie_word_embeddings";
  if (config.has(kTied)) {
    text[kTied] = config.at(kTied);
  } else if (!text.contains(kTied)) {
    text[kTied] = wrapper.is_tied;
  }
  return text;
}

std::vector<TensorNames> possible_names(const Json& config) {
  if (!has_text_part(config)) {
    const auto type = config.at("model_type").get<std::string>();
    const std::string body(find_family(type).body);
    if (body == kBody) return {{}};
    return {{body, ""}, {}};
  }
  return {
      {"model.language_model.", ""},
      {"language_model.model.", "language_model."},
      {"language_model.", ""},
      {std::string(kBody), ""}};
}

TensorNames default_names(const Json& config) {
  return possible_names(config).front();
}

std::string placed_name(const TensorNames& names, std::string_view name) {
  if (name.starts_with(kBody)) {
    return names.body + std::string(name.substr(kBody.size()));
  }
  return names.head + std::string(name);
}

std::string stated_dtype(const Json& config) {
  const std::string outer = named_dtype(config);
  return outer.empty() ? named_dtype(text_part(config)) : outer;
}

void state_dtype(Json& config, const std::string& name) {
  config[dtype_key(config)] = name;
  Json& text = text_part(config);
  if (!named_dtype(text).empty()) text[dtype_key(text)] = name;
}

std::span<const std::string_view> carried_parts() { return kCarriedParts; }

void state_no_mtp(Json& config) {
  for (const char* key : kMtpCounts) {
    if (config.contains(key)) config[key] = 0;
  }
  Json& text = text_part(config);
  bool stated = false;
  for (const char* key : kMtpCounts) {
    if (!text.contains(key)) continue;
    text[key] = 0;
    stated = true;
  }
  if (!stated) text[kMtpCounts.front()] = 0;
}

}  // namespace fettle::model
