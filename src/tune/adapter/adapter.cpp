// SPDX-License-Identifier: Apache-2.0
#include "tune/adapter/adapter.h"

#include <fmt/format.h>

#include "core/error.h"
#include "io/checksum.h"
#include "io/durable.h"
#include "io/file.h"
#include "tune/condenser/condenser_delta.h"
#include "tune/low_rank/low_rank_delta.h"
#include "tune/sparse/block_delta.h"
#include "tune/sparse/neuron_delta.h"
#include "tune/whole/stored_delta.h"
#include "tune/whole/weight_delta.h"

namespace fettle::tune {

namespace {

constexpr std::int64_t kFormat = 1;
constexpr const char* kTensors = "adapter.safetensors";
constexpr const char* kInfo = "adapter.json";

std::unique_ptr<AdapterPart> load_part(
    const JsonObject& info,
    const std::string& name,
    const artifact::TensorMap& tensors,
    const model::ModelConfig& config) {
  if (name == "neurons") return std::make_unique<NeuronDelta>(tensors, config);
  if (name == "router" || name == "experts" || name == "weights") {
    return std::make_unique<WeightDelta>(tensors, name, config);
  }
  if (name == "condenser") {
    return std::make_unique<CondenserDelta>(tensors, config);
  }
  if (name == "blocks" || name == "attention_blocks") {
    return std::make_unique<BlockDelta>(tensors, name, config);
  }
  if (name == "lora") return std::make_unique<LowRankDelta>(tensors, config);
  info.refuse(
      "parts",
      fmt::format("expected a part that tune makes, found '{}'", name));
}

void check_checksum(
    const std::filesystem::path& path, const std::string& expected) {
  if (io::hash_file(path) == expected) return;
  throw UserError(
      "adapter",
      path.string(),
      "expected the checksum in adapter.json, found another; the file is "
      "damaged");
}

}  // namespace

std::string model_fingerprint(const model::ModelReader& reader) {
  return reader.fingerprint();
}

void save_adapter(
    const std::filesystem::path& folder,
    const std::vector<std::unique_ptr<TrainablePart>>& parts,
    const AdapterInfo& info) {
  artifact::TensorFile file;
  Json names = Json::array();
  Json large = Json::object();
  for (const auto& part : parts) {
    part->save_adapter(file.tensors);
    names.push_back(std::string(part->name()));
    if (const auto written = part->save_large(folder)) {
      large[std::string(part->name())] = io::hash_file(folder / *written);
    }
  }
  artifact::save_tensors(folder / kTensors, file);
  const Json json{
      {"format", kFormat},
      {"method", info.method},
      {"parts", names},
      {"large", large},
      {"model_fingerprint", info.model_fingerprint},
      {"options", info.options},
      {"measured", info.measured},
      {"checksum", io::hash_file(folder / kTensors)}};
  io::write_file(folder / kInfo, json.dump(2) + "\n");
}

void set_measured(const std::filesystem::path& folder, const Json& measured) {
  Json json = read_json(folder / kInfo, "adapter");
  JsonObject(json, "adapter", (folder / kInfo).string());
  json["measured"] = measured;
  io::replace_file(folder / kInfo, json.dump(2) + "\n");
}

Adapter Adapter::load(
    const std::filesystem::path& folder,
    const model::ModelReader& base,
    const AdapterLoadOptions& options) {
  const Json json = read_json(folder / kInfo, "adapter");
  const JsonObject info(json, "adapter", (folder / kInfo).string());
  if (info.integer("format") != kFormat) {
    info.refuse(
        "format",
        fmt::format(
            "expected {}, found {}; use the version of Fettle that wrote it",
            kFormat,
            info.integer("format")));
  }
  Adapter adapter;
  adapter.info_.method = info.string("method");
  adapter.info_.model_fingerprint = info.string("model_fingerprint");
  adapter.info_.options = info.object("options").json();
  adapter.info_.measured = info.object("measured").json();
  if (!options.any_base &&
      adapter.info_.model_fingerprint != model_fingerprint(base)) {
    info.refuse(
        "model_fingerprint",
        fmt::format(
            "expected the model that was tuned, found another in {}; name the "
            "folder that tune was given, or insist with --any-base",
            base.folder().string()));
  }
  const std::filesystem::path path = folder / kTensors;
  const auto file = artifact::load_tensors(path, {.finite = true});
  check_checksum(path, info.string("checksum"));
  if (!info.at("parts").is_array()) info.refuse("parts", "expected an array");
  for (const Json& name : info.at("parts")) {
    if (!name.is_string()) info.refuse("parts", "expected strings");
    const auto part = name.get<std::string>();
    if (info.has("large") && info.object("large").has(part)) {
      const std::filesystem::path values = folder / (part + ".safetensors");
      check_checksum(values, info.object("large").string(part));
      adapter.parts_.push_back(
          std::make_unique<StoredDelta>(values, part, base.config()));
    } else {
      adapter.parts_.push_back(
          load_part(info, part, file.tensors, base.config()));
    }
  }
  return adapter;
}

void Adapter::change(model::ModelConfig& config) const {
  for (const auto& part : parts_) part->change(config);
}

void Adapter::patch(std::int64_t layer, model::LayerWeights& weights) const {
  for (const auto& part : parts_) part->patch(layer, weights);
}

void Adapter::patch_globals(model::GlobalWeights& weights) const {
  for (const auto& part : parts_) part->patch_globals(weights);
}

bool Adapter::changes(const model::WeightId& id) const {
  for (const auto& part : parts_) {
    if (part->changes(id)) return true;
  }
  return false;
}

at::Tensor Adapter::merge(const model::WeightId& id, at::Tensor base) const {
  for (const auto& part : parts_) {
    if (part->changes(id)) base = part->merge(id, base);
  }
  return base;
}

}  // namespace fettle::tune
