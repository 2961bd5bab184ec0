// SPDX-License-Identifier: Apache-2.0
#include "chain/fit_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <string_view>

#include "artifact/model_writer.h"
#include "core/bytes.h"
#include "core/json_members.h"
#include "core/text_file.h"
#include "io/checkpoint_writer.h"
#include "model/family/text_part.h"
#include "model/weights/model_folder.h"
#include "trim/kept_blocks.h"

namespace fettle::chain {

namespace fs = std::filesystem;
using model::Role;
using model::SourceMethod;
using model::WeightId;

struct FitSource::Found {
  bool weights = false;                    // all of them
  std::optional<std::int64_t> total = {};  // bytes that an index names
};

namespace {

bool file_in(const fs::path& folder, std::string_view name) {
  std::error_code ignored;
  return fs::exists(folder / name, ignored);
}

at::ScalarType type_named(const std::string& name) {
  if (name == "float32") return at::kFloat;
  return name == "float16" ? at::kHalf : at::kBFloat16;
}

const char* type_name(at::ScalarType type) {
  if (type == at::kFloat) return "float32";
  return type == at::kHalf ? "float16" : "bfloat16";
}

const char* method_name(SourceMethod method) {
  switch (method) {
    case SourceMethod::kFp8:
      return "fp8";
    case SourceMethod::kCompressedTensors:
      return "compressed-tensors";
    case SourceMethod::kGptq:
      return "gptq";
    case SourceMethod::kAwq:
      return "awq";
    case SourceMethod::kMxfp4:
      return "mxfp4";
    case SourceMethod::kFettle:
      return "fettle quant";
    case SourceMethod::kPlain:
      break;
  }
  return "";
}

// Parts of the model that config.json tells of, but not how large they are.
std::string uncounted_parts(const Json& config) {
  std::string parts;
  for (const auto& [key, value] : config.items()) {
    if (value.is_object() && key.ends_with("_config") && key != "text_config" &&
        key != "quantization_config") {
      parts += (parts.empty() ? "" : ", ") + key.substr(0, key.size() - 7);
    }
  }
  const Json& text = model::text_part(config);
  for (const char* key :
       {"num_nextn_predict_layers",
        "mtp_num_hidden_layers",
        "num_mtp_layers"}) {
    const auto found = text.find(key);
    if (found == text.end() || !found->is_number_integer()) continue;
    if (found->get<std::int64_t>() > 0) {
      parts += std::string(parts.empty() ? "" : ", ") +
               "heads that predict further tokens";
    }
  }
  return parts;
}

void mix(std::uint64_t& hash, std::int64_t value) {
  hash = (hash ^ static_cast<std::uint64_t>(value)) * 1099511628211u;
}

}  // namespace

FitSource::Found FitSource::look(const fs::path& folder) {
  Found found;
  for (const std::string_view stem :
       {std::string_view("model"), io::kPackedStem, io::kOwnStem}) {
    if (file_in(folder, std::string(stem) + ".safetensors")) {
      found.weights = true;
      return found;
    }
    const fs::path index = folder / io::index_name(stem);
    if (!file_in(folder, io::index_name(stem))) continue;
    std::set<std::string> shards;
    const std::string subject = index.string();
    const Json rest = parse_json_members(
        read_text_file(index, "model"),
        {"model", subject, "weight_map"},
        [&](std::string&, Json& shard) {
          if (shard.is_string()) shards.insert(shard.get<std::string>());
        });
    found.weights = !shards.empty() &&
                    std::ranges::all_of(shards, [&](const std::string& name) {
                      return file_in(folder, name);
                    });
    const Json metadata = rest.value("metadata", Json::object());
    if (metadata.is_object() && metadata.contains("total_size") &&
        metadata.at("total_size").is_number()) {
      found.total = metadata.at("total_size").get<std::int64_t>();
    }
    return found;
  }
  return found;
}

FitSource::FitSource(const fs::path& folder)
    : name_(model::model_name(
          folder.has_filename() ? folder : folder.parent_path())) {
  if (!file_in(folder, "config.json")) model::checked_model_folder(folder);
  const Found found = look(folder);
  if (found.weights) {
    reader_ = std::make_unique<model::ModelReader>(folder);
    config_ = reader_->config();
    carried_bytes_ = reader_->carried_bytes();
    exact_.emplace_back(
        "types, shapes and bytes of all tensors, from their headers");
  } else {
    config_ = model::read_model_config(folder.string());
    assume(found);
  }
  find_kinds();
}

void FitSource::assume(const Found& found) {
  const std::string named = model::stated_dtype(config_.json);
  type_ = type_named(named);
  stored_ = model::parse_stored_source(
      JsonObject(config_.json, "model", "config.json"));
  exact_.emplace_back("shapes of all weights, from config.json");
  if (stored_.method == SourceMethod::kPlain) {
    assumed_.push_back(
        named.empty()
            ? std::string(
                  "weights stored as bfloat16: config.json names no type")
            : fmt::format(
                  "weights stored as {}, which config.json names",
                  type_name(type_)));
  } else if (stored_.method == SourceMethod::kFettle) {
    assumed_.emplace_back(
        "weights stored as bfloat16: they are packed, and only their files "
        "tell how");
  } else {
    assumed_.push_back(fmt::format(
        "{} stored as {}, all else as {}",
        stored_.method == SourceMethod::kMxfp4 ? "experts"
                                               : "the layers' matrices",
        method_name(stored_.method),
        type_name(type_)));
  }
  const std::string parts = uncounted_parts(config_.json);
  if (found.total) {
    std::int64_t counted = 0;
    for (const WeightId& id : model::model_weights(config_)) {
      counted += stored_bytes(id);
    }
    carried_bytes_ = std::max<std::int64_t>(*found.total - counted, 0);
    assumed_.push_back(fmt::format(
        "what the index counts beyond the language model's weights ({} of {}) "
        "is carried",
        format_bytes(carried_bytes_),
        format_bytes(*found.total)));
  } else if (!parts.empty()) {
    assumed_.push_back(fmt::format(
        "nothing for {}: config.json does not tell their bytes", parts));
  }
}

std::optional<model::BlockGrid> FitSource::assumed_blocks(Role role) const {
  const bool expert = model::kExpertRoles.has(role);
  if (stored_.method == SourceMethod::kMxfp4) {
    if (!expert) return std::nullopt;
    return model::BlockGrid{1, 32, io::DType::kU8, 4};
  }
  if (stored_.method != SourceMethod::kFp8) return std::nullopt;
  if (!model::is_mlp_role(role) && !model::is_attention_role(role)) {
    return std::nullopt;
  }
  const model::CodeScheme& scheme = stored_.schemes.front();
  return model::BlockGrid{
      std::max<std::int64_t>(scheme.block_rows, 1),
      scheme.block_cols > 0 ? scheme.block_cols : config_.hidden_size};
}

model::WeightForm FitSource::form(const WeightId& id) const {
  if (reader_) {
    return reader_->packed_header(id) != nullptr
               ? reader_->form(id)
               : trim::kept_form(*reader_, id);
  }
  return {.dtype = type_, .blocks = assumed_blocks(id.role)};
}

const model::PackedHeader* FitSource::packed(const WeightId& id) const {
  return reader_ ? reader_->packed_header(id) : nullptr;
}

std::int64_t FitSource::stored_bytes(const WeightId& id) const {
  if (reader_) return reader_->stored_bytes(id);
  const bool words = stored_.method == SourceMethod::kGptq ||
                     stored_.method == SourceMethod::kAwq ||
                     stored_.method == SourceMethod::kCompressedTensors;
  const bool coded =
      words && !stored_.schemes.empty() &&
      (model::is_mlp_role(id.role) || model::is_attention_role(id.role));
  if (!coded) return artifact::weight_bytes(config_, id, form(id));
  const model::CodeScheme& scheme = stored_.schemes.front();
  const auto shape = model::weight_shape(config_, id);
  const std::int64_t group =
      scheme.block_cols > 0 ? scheme.block_cols : shape[1];
  const std::int64_t groups = group > 0 ? (shape[1] + group - 1) / group : 0;
  return shape[0] * ((shape[1] * scheme.bits + 7) / 8 + groups * 2);
}

std::int64_t FitSource::block_unit() const {
  if (reader_) return trim::kept_unit(*reader_);
  const auto blocks = assumed_blocks(Role::kExpertDown);
  if (!blocks) return 1;
  return std::lcm(blocks->rows, blocks->cols);
}

std::uint64_t FitSource::signature(std::int64_t layer) const {
  std::uint64_t hash = 14695981039346656037u;
  if (!reader_) return hash;
  for (const WeightId& id : model::layer_weights(config_, layer)) {
    const model::WeightForm weight = form(id);
    mix(hash, static_cast<std::int64_t>(weight.dtype));
    mix(hash, reader_->stored_bytes(id));
    mix(hash, weight.loaded_bytes);
    mix(hash,
        weight.blocks ? weight.blocks->rows * 1024 + weight.blocks->cols : 0);
  }
  return hash;
}

void FitSource::find_kinds() {
  std::vector<std::uint64_t> signatures;
  for (std::int64_t l = 0; l < config_.num_layers(); ++l) {
    const std::uint64_t own = signature(l);
    std::size_t k = 0;
    while (k < kinds_.size() &&
           (signatures[k] != own ||
            config_.layers[kinds_[k].first] != config_.layers[l])) {
      ++k;
    }
    if (k == kinds_.size()) {
      kinds_.push_back({l, 0});
      signatures.push_back(own);
    }
    ++kinds_[k].count;
    kind_of_.push_back(static_cast<std::int64_t>(k));
  }
}

}  // namespace fettle::chain
