// SPDX-License-Identifier: Apache-2.0
#include "artifact/score_file.h"

#include <numeric>
#include <utility>

#include "artifact/score_layout.h"
#include "artifact/tensor_file.h"
#include "io/checksum.h"
#include "io/file.h"

namespace fettle::artifact {
namespace {

using score_layout::array_name;

const LayerScores* first_sparse(const ScoreFile& file) {
  for (const LayerScores& layer : file.layers) {
    if (!layer.widths.empty()) return &layer;
  }
  return nullptr;
}

template <typename Entries>
std::vector<std::string> keys(const Entries& entries) {
  std::vector<std::string> names;
  for (const auto& entry : entries) names.push_back(entry.first);
  return names;
}

template <typename Names, typename Value>
std::string name_in(const Names& names, Value value) {
  for (const auto& [known, name] : names) {
    if (known == value) return std::string(name);
  }
  return {};
}

Json sums_json(const ScoreFile& file) {
  Json list = Json::array();
  const LayerScores* layer = first_sparse(file);
  if (layer == nullptr) return list;
  for (const auto& [name, sum] : layer->sums) {
    list.push_back(
        {{"name", name},
         {"per", name_in(score_layout::kUnits, sum.unit)},
         {"reduction", name_in(score_layout::kReductions, sum.reduction)}});
  }
  return list;
}

Json merged_json(const ScoreFile& file) {
  Json list = Json::array();
  for (const MergedRun& run : file.merged) {
    Json scores = Json::array();
    for (std::size_t l = 0; l < run.ranks.size(); ++l) {
      if (file.layers[l].widths.empty()) continue;
      scores = keys(run.ranks[l]);
      break;
    }
    list.push_back(
        {{"name", run.name}, {"tokens", run.tokens}, {"scores", scores}});
  }
  return list;
}

void add_layer(const ScoreFile& file, std::size_t l, TensorMap& tensors) {
  const LayerScores& layer = file.layers[l];
  for (const auto& [name, values] : layer.neuron) {
    tensors[array_name(l, "neuron." + name)] = values;
  }
  for (const auto& [name, values] : layer.expert) {
    tensors[array_name(l, "expert." + name)] = values;
  }
  for (const auto& [name, sum] : layer.sums) {
    tensors[array_name(l, "sums." + name)] = sum.values;
  }
  for (std::size_t r = 0; r < file.merged.size(); ++r) {
    for (const auto& [name, ranks] : file.merged[r].ranks[l]) {
      tensors[score_layout::rank_name(l, r, name)] = ranks;
    }
  }
  tensors[array_name(l, "mean_h")] = layer.mean_h;
  tensors[array_name(l, "tokens")] = layer.tokens;
}

}  // namespace

std::int64_t LayerScores::total_width() const {
  return std::accumulate(widths.begin(), widths.end(), std::int64_t{0});
}

std::vector<std::string> ScoreFile::neuron_scores() const {
  const LayerScores* layer = first_sparse(*this);
  return layer == nullptr ? std::vector<std::string>{} : keys(layer->neuron);
}

std::vector<std::string> ScoreFile::expert_scores() const {
  const LayerScores* layer = first_sparse(*this);
  return layer == nullptr ? std::vector<std::string>{} : keys(layer->expert);
}

std::vector<std::string> ScoreFile::all_scores() const {
  std::vector<std::string> names = neuron_scores();
  for (std::string& name : expert_scores()) names.push_back(std::move(name));
  return names;
}

void ScoreFile::save(const std::filesystem::path& folder) const {
  TensorFile file;
  Json rows = Json::array();
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const LayerScores& layer = layers[l];
    rows.push_back(
        {{"widths", layer.widths}, {"router_entropy", layer.router_entropy}});
    if (!layer.widths.empty()) add_layer(*this, l, file.tensors);
  }
  save_tensors(folder / score_layout::kArrays, file);
  const Json text = {
      {"format", score_layout::kFormat},
      {"version", version},
      {"model_fingerprint", model_fingerprint},
      {"tokens", tokens},
      {"checksum", io::hash_file(folder / score_layout::kArrays)},
      {"neuron_scores", neuron_scores()},
      {"expert_scores", expert_scores()},
      {"sums", sums_json(*this)},
      {"merged", merged_json(*this)},
      {"layers", std::move(rows)},
      {"run", run}};
  io::write_file(folder / score_layout::kText, text.dump(1) + "\n");
}

}  // namespace fettle::artifact
