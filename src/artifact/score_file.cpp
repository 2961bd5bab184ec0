// SPDX-License-Identifier: Apache-2.0
#include "artifact/score_file.h"

#include <fmt/format.h>

#include <numeric>
#include <utility>

#include "artifact/tensor_file.h"
#include "core/error.h"
#include "io/file.h"

namespace fettle::artifact {
namespace {

constexpr std::int64_t kFormat = 1;
constexpr const char* kArrays = "scores.safetensors";
constexpr const char* kText = "scores.json";

using Scores = std::map<std::string, at::Tensor>;

std::vector<std::string> names_of(
    const ScoreFile& file, Scores LayerScores::*which) {
  for (const LayerScores& layer : file.layers) {
    if (layer.widths.empty()) continue;
    std::vector<std::string> names;
    for (const auto& entry : layer.*which) names.push_back(entry.first);
    return names;
  }
  return {};
}

std::string array_name(std::size_t layer, const std::string& rest) {
  return fmt::format("layers.{}.{}", layer, rest);
}

// Takes the arrays of a loaded file one by one, checking each.
class ArrayReader {
 public:
  explicit ArrayReader(const std::filesystem::path& path)
      : path_(path), file_(load_tensors(path, {.finite = true})) {}

  at::Tensor take(
      const std::string& name, std::int64_t size, at::ScalarType type) const {
    const auto found = file_.tensors.find(name);
    if (found == file_.tensors.end()) {
      refuse(name, "is missing; run fettle analyze again");
    }
    const at::Tensor& tensor = found->second;
    if (tensor.dim() != 1 || tensor.size(0) != size ||
        tensor.scalar_type() != type) {
      refuse(
          name,
          fmt::format(
              "expected {} values of type {}, found shape [{}] of type {}; run "
              "fettle analyze again",
              size,
              c10::toString(type),
              fmt::join(tensor.sizes(), ", "),
              c10::toString(tensor.scalar_type())));
    }
    return tensor;
  }

 private:
  [[noreturn]] void refuse(
      const std::string& name, const std::string& why) const {
    throw UserError("scores", path_.string() + ": " + name, why);
  }

  std::filesystem::path path_;
  TensorFile file_;
};

std::vector<std::string> read_names(
    const JsonObject& json, std::string_view key) {
  std::vector<std::string> names;
  const Json& array = json.at(key);
  if (!array.is_array()) json.refuse(key, "expected a list of score names");
  for (const Json& name : array) {
    if (!name.is_string()) json.refuse(key, "expected a list of score names");
    names.push_back(name.get<std::string>());
  }
  return names;
}

std::vector<std::int64_t> read_widths(const JsonObject& json) {
  std::vector<std::int64_t> widths;
  const Json& array = json.at("widths");
  if (!array.is_array()) json.refuse("widths", "expected a list");
  for (const Json& width : array) {
    if (!width.is_number_integer() || width.get<std::int64_t>() < 0) {
      json.refuse("widths", "expected integers of at least 0");
    }
    widths.push_back(width.get<std::int64_t>());
  }
  return widths;
}

}  // namespace

std::int64_t LayerScores::total_width() const {
  return std::accumulate(widths.begin(), widths.end(), std::int64_t{0});
}

std::vector<std::string> ScoreFile::neuron_scores() const {
  return names_of(*this, &LayerScores::neuron);
}

std::vector<std::string> ScoreFile::expert_scores() const {
  return names_of(*this, &LayerScores::expert);
}

void ScoreFile::save(const std::filesystem::path& folder) const {
  TensorFile file;
  Json rows = Json::array();
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const LayerScores& layer = layers[l];
    rows.push_back(
        {{"widths", layer.widths}, {"router_entropy", layer.router_entropy}});
    if (layer.widths.empty()) continue;
    for (const auto& [name, values] : layer.neuron) {
      file.tensors[array_name(l, "neuron." + name)] = values;
    }
    for (const auto& [name, values] : layer.expert) {
      file.tensors[array_name(l, "expert." + name)] = values;
    }
    file.tensors[array_name(l, "mean_h")] = layer.mean_h;
    file.tensors[array_name(l, "tokens")] = layer.tokens;
  }
  save_tensors(folder / kArrays, file);
  const Json text = {
      {"format", kFormat},
      {"model_fingerprint", model_fingerprint},
      {"tokens", tokens},
      {"neuron_scores", neuron_scores()},
      {"expert_scores", expert_scores()},
      {"layers", std::move(rows)},
      {"run", run}};
  io::write_file(folder / kText, text.dump(1) + "\n");
}

ScoreFile ScoreFile::load(const std::filesystem::path& folder) {
  const Json text = read_json(folder / kText, "scores");
  const JsonObject json(text, "scores", (folder / kText).string());
  if (json.integer("format") != kFormat) {
    json.refuse(
        "format",
        fmt::format(
            "expected {}, found {}; run fettle analyze of this version",
            kFormat,
            json.integer("format")));
  }
  ScoreFile file;
  file.model_fingerprint = json.string("model_fingerprint");
  file.tokens = json.integer("tokens");
  file.run = json.at("run");
  const auto neuron = read_names(json, "neuron_scores");
  const auto expert = read_names(json, "expert_scores");
  const ArrayReader arrays(folder / kArrays);
  const Json& rows = json.at("layers");
  if (!rows.is_array()) json.refuse("layers", "expected a list");
  for (std::size_t l = 0; l < rows.size(); ++l) {
    const JsonObject row(
        rows[l], "scores", fmt::format("{}: layers[{}]", json.subject(), l));
    LayerScores layer;
    layer.widths = read_widths(row);
    layer.router_entropy = row.number("router_entropy");
    if (!layer.widths.empty()) {
      const std::int64_t width = layer.total_width();
      const std::int64_t experts = layer.num_experts();
      for (const std::string& name : neuron) {
        layer.neuron[name] =
            arrays.take(array_name(l, "neuron." + name), width, at::kFloat);
      }
      for (const std::string& name : expert) {
        layer.expert[name] =
            arrays.take(array_name(l, "expert." + name), experts, at::kFloat);
      }
      layer.mean_h = arrays.take(array_name(l, "mean_h"), width, at::kFloat);
      layer.tokens = arrays.take(array_name(l, "tokens"), experts, at::kLong);
    }
    file.layers.push_back(std::move(layer));
  }
  return file;
}

}  // namespace fettle::artifact
