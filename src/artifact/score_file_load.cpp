// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <utility>

#include "artifact/score_file.h"
#include "artifact/score_layout.h"
#include "artifact/tensor_file.h"
#include "core/error.h"
#include "io/checksum.h"
#include "io/file.h"
#include "io/safetensors.h"

namespace fettle::artifact {
namespace {

using score_layout::array_name;

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

const Json& list_at(const JsonObject& json, std::string_view key) {
  const Json& list = json.at(key);
  if (!list.is_array()) json.refuse(key, "expected a list");
  return list;
}

// Entry `i` of a list of objects.
JsonObject entry(const JsonObject& json, std::string_view key, std::size_t i) {
  return JsonObject(
      json.at(key)[i],
      "scores",
      fmt::format("{}: {}[{}]", json.subject(), key, i));
}

std::vector<std::string> read_names(
    const JsonObject& json, std::string_view key) {
  std::vector<std::string> names;
  for (const Json& name : list_at(json, key)) {
    if (!name.is_string()) json.refuse(key, "expected a list of score names");
    names.push_back(name.get<std::string>());
  }
  return names;
}

std::vector<std::int64_t> read_widths(const JsonObject& json) {
  std::vector<std::int64_t> widths;
  for (const Json& width : list_at(json, "widths")) {
    if (!width.is_number_integer() || width.get<std::int64_t>() < 0) {
      json.refuse("widths", "expected integers of at least 0");
    }
    widths.push_back(width.get<std::int64_t>());
  }
  return widths;
}

template <typename Names>
auto read_kind(
    const JsonObject& json, std::string_view key, const Names& names) {
  const std::string text = json.string(key);
  std::string known;
  for (const auto& [kind, name] : names) {
    if (name == text) return kind;
    known += known.empty() ? "" : ", ";
    known += name;
  }
  json.refuse(key, fmt::format("expected one of {}, found {}", known, text));
}

// The sums that every sparse layer has, their values left out.
std::map<std::string, Sum> read_sums(const JsonObject& json) {
  std::map<std::string, Sum> sums;
  const std::size_t count = list_at(json, "sums").size();
  for (std::size_t i = 0; i < count; ++i) {
    const JsonObject row = entry(json, "sums", i);
    sums[row.string("name")] = {
        read_kind(row, "per", score_layout::kUnits),
        read_kind(row, "reduction", score_layout::kReductions),
        {}};
  }
  return sums;
}

// What a file says it holds of each sparse layer.
struct Contents {
  std::vector<std::string> neuron, expert;
  std::map<std::string, Sum> sums;
  std::vector<std::vector<std::string>> ranked;  // scores, by merged run
};

std::int64_t values_of(const LayerScores& layer, Unit unit) {
  if (unit == Unit::kNeuron) return layer.total_width();
  if (unit == Unit::kPair) {
    std::int64_t pairs = 0;
    for (const std::int64_t width : layer.widths) pairs += width * width;
    return pairs;
  }
  return unit == Unit::kExpert ? layer.num_experts() : 1;
}

void read_arrays(
    const Contents& contents,
    const ArrayReader& arrays,
    std::size_t l,
    ScoreFile& file) {
  LayerScores& layer = file.layers[l];
  const std::int64_t width = layer.total_width();
  const std::int64_t experts = layer.num_experts();
  for (const std::string& name : contents.neuron) {
    layer.neuron[name] =
        arrays.take(array_name(l, "neuron." + name), width, at::kFloat);
  }
  for (const std::string& name : contents.expert) {
    layer.expert[name] =
        arrays.take(array_name(l, "expert." + name), experts, at::kFloat);
  }
  layer.sums = contents.sums;
  for (auto& [name, sum] : layer.sums) {
    sum.values = arrays.take(
        array_name(l, "sums." + name), values_of(layer, sum.unit), at::kDouble);
  }
  for (std::size_t r = 0; r < contents.ranked.size(); ++r) {
    for (const std::string& name : contents.ranked[r]) {
      file.merged[r].ranks[l][name] =
          arrays.take(score_layout::rank_name(l, r, name), width, at::kInt);
    }
  }
  layer.mean_h = arrays.take(array_name(l, "mean_h"), width, at::kFloat);
  layer.tokens = arrays.take(array_name(l, "tokens"), experts, at::kLong);
}

// Checks those entries about the run that are read later; returns them all.
Json read_run(const JsonObject& run) {
  run.string_or("model", "");
  for (const char* count : {"sequences", "loss_tokens"}) {
    run.integer_or(count, 0);
  }
  for (const char* list : {"data", "data_checksums"}) {
    if (run.has(list)) list_at(run, list);
  }
  return run.json();
}

// Files of the format before had no checksum.
void check_arrays(const JsonObject& json, const std::filesystem::path& arrays) {
  if (json.integer("format") < score_layout::kFormat) return;
  if (io::hash_file(arrays) == json.string("checksum")) return;
  throw UserError(
      "scores",
      arrays.string(),
      "expected the checksum in scores.json, found another; the file is "
      "damaged: run fettle analyze again");
}

void check_format(const JsonObject& json) {
  const std::int64_t found = json.integer("format");
  if (found == score_layout::kFormat ||
      found == score_layout::kFormatWithoutChecksum) {
    return;
  }
  json.refuse(
      "format",
      fmt::format(
          "expected {}, found {}; run fettle analyze of this version",
          score_layout::kFormat,
          found));
}

}  // namespace

ScoreFile ScoreFile::load(const std::filesystem::path& folder) {
  const Json text = read_json(folder / score_layout::kText, "scores");
  const JsonObject json(
      text, "scores", (folder / score_layout::kText).string());
  check_format(json);
  ScoreFile file;
  file.version = json.string("version");
  file.model_fingerprint = json.string("model_fingerprint");
  file.tokens = json.integer("tokens");
  file.run = read_run(json.object("run"));
  Contents contents{
      read_names(json, "neuron_scores"),
      read_names(json, "expert_scores"),
      read_sums(json),
      {}};
  const std::size_t layers = list_at(json, "layers").size();
  const std::size_t runs = list_at(json, "merged").size();
  for (std::size_t r = 0; r < runs; ++r) {
    const JsonObject row = entry(json, "merged", r);
    contents.ranked.push_back(read_names(row, "scores"));
    file.merged.push_back({row.string("name"), row.integer("tokens"), {}});
    file.merged.back().ranks.resize(layers);
  }
  check_arrays(json, folder / score_layout::kArrays);
  const ArrayReader arrays(folder / score_layout::kArrays);
  for (std::size_t l = 0; l < layers; ++l) {
    const JsonObject row = entry(json, "layers", l);
    file.layers.emplace_back();
    file.layers[l].widths = read_widths(row);
    file.layers[l].router_entropy = row.number("router_entropy");
    if (!file.layers[l].widths.empty()) read_arrays(contents, arrays, l, file);
  }
  return file;
}

std::vector<std::int64_t> ScoreFile::layer_bytes(
    const std::filesystem::path& folder) {
  const Json text = read_json(folder / score_layout::kText, "scores");
  const JsonObject json(
      text, "scores", (folder / score_layout::kText).string());
  check_format(json);
  std::vector<std::int64_t> layers(list_at(json, "layers").size());
  const auto header = io::SafetensorsFile::parse(
      *io::open_file(folder / score_layout::kArrays));
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const std::string prefix = array_name(l, "");
    for (const io::TensorInfo& array : header.tensors()) {
      if (!array.name.starts_with(prefix)) continue;
      layers[l] += static_cast<std::int64_t>(array.bytes());
    }
  }
  return layers;
}

}  // namespace fettle::artifact
