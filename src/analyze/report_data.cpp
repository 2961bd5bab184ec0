// SPDX-License-Identifier: Apache-2.0
#include "analyze/report_data.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "analyze/choices_by_file.h"
#include "analyze/cut_advice.h"
#include "analyze/layer_sums.h"
#include "analyze/ranking.h"

namespace fettle::analyze {
namespace {

// Four significant digits: the page holds a number per expert and score.
double rounded(double value) {
  if (value == 0 || !std::isfinite(value)) return 0;
  const double unit =
      std::pow(10.0, std::floor(std::log10(std::abs(value))) - 3);
  return std::round(value / unit) * unit;
}

std::vector<double> to_vector(const at::Tensor& values) {
  const at::Tensor whole = values.to(at::kDouble).contiguous();
  const double* data = whole.const_data_ptr<double>();
  return {data, data + whole.numel()};
}

// [E]: sums of an array [S] over each expert's neurons.
std::vector<double> expert_sums(
    const artifact::LayerScores& layer, const at::Tensor& neurons) {
  std::vector<double> sums;
  const at::Tensor values = neurons.to(at::kDouble);
  const auto offsets = neuron_offsets(layer.widths);
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    sums.push_back(
        values.slice(0, offsets[e], offsets[e + 1]).sum().item<double>());
  }
  return sums;
}

// A row a layer, of rounded numbers.
template <typename Values>
Json rows(const artifact::ScoreFile& scores, Values values) {
  Json all = Json::array();
  for (std::size_t l = 0; l < scores.layers.size(); ++l) {
    Json row = Json::array();
    if (!scores.layers[l].widths.empty()) {
      for (const double value : values(l)) row.push_back(rounded(value));
    }
    all.push_back(std::move(row));
  }
  return all;
}

// A number a layer, null where it is dense.
template <typename Value>
Json column(const artifact::ScoreFile& scores, Value value) {
  Json all = Json::array();
  for (const artifact::LayerScores& layer : scores.layers) {
    all.push_back(layer.widths.empty() ? Json() : Json(rounded(value(layer))));
  }
  return all;
}

Json kept_widths(const artifact::ScoreFile& scores, const std::string& name) {
  const std::vector<at::Tensor> ranks = rank_neurons(scores, name);
  std::int64_t neurons = 0;
  for (const at::Tensor& layer : ranks) neurons += layer.numel();
  return rows(scores, [&](std::size_t l) {
    const artifact::LayerScores& layer = scores.layers[l];
    std::vector<double> kept = expert_sums(layer, ranks[l].lt(neurons / 2));
    for (std::size_t e = 0; e < kept.size(); ++e) {
      kept[e] /=
          static_cast<double>(std::max<std::int64_t>(layer.widths[e], 1));
    }
    return kept;
  });
}

std::vector<double> load(const artifact::LayerScores& layer) {
  std::vector<double> tokens = to_vector(layer.tokens);
  const double mean =
      std::max(layer.tokens.sum().item<double>(), 1.0) /
      static_cast<double>(std::max<std::size_t>(tokens.size(), 1));
  for (double& value : tokens) value /= mean;
  return tokens;
}

double load_entropy(const artifact::LayerScores& layer) {
  const at::Tensor tokens = layer.tokens.to(at::kDouble);
  const double total = tokens.sum().item<double>();
  if (total == 0) return 0;
  return at::special_entr(tokens / total).sum().item<double>();
}

Json pair_overlap(
    const artifact::ScoreFile& scores,
    const std::string& name,
    std::size_t a,
    std::size_t b) {
  const auto ranks = [&](std::size_t run, std::size_t l) {
    return scores.merged[run].ranks[l].at(name);
  };
  std::vector<at::Tensor> x;
  std::vector<at::Tensor> y;
  Json layers = Json::array();
  for (std::size_t l = 0; l < scores.layers.size(); ++l) {
    if (scores.layers[l].widths.empty()) {
      layers.push_back(Json());
      continue;
    }
    x.push_back(ranks(a, l));
    y.push_back(ranks(b, l));
    layers.push_back(rounded(overlap(x.back(), y.back())));
  }
  const double all = overlap(at::cat(x), at::cat(y));
  return {{"a", a}, {"b", b}, {"all", rounded(all)}, {"layers", layers}};
}

// Scores that every run was ranked by.
std::vector<std::string> ranked_scores(const artifact::ScoreFile& scores) {
  std::vector<std::string> names;
  for (const std::string& name : scores.neuron_scores()) {
    const bool everywhere =
        std::ranges::all_of(scores.merged, [&](const artifact::MergedRun& run) {
          for (std::size_t l = 0; l < scores.layers.size(); ++l) {
            if (!scores.layers[l].widths.empty() &&
                !run.ranks[l].contains(name)) {
              return false;
            }
          }
          return true;
        });
    if (everywhere) names.push_back(name);
  }
  return names;
}

Json overlaps(const artifact::ScoreFile& scores) {
  Json names = Json::array();
  Json list = Json::array();
  for (const artifact::MergedRun& run : scores.merged) {
    names.push_back(run.name);
  }
  if (!scores.merged.empty()) {
    for (const std::string& name : ranked_scores(scores)) {
      Json pairs = Json::array();
      for (std::size_t a = 0; a < names.size(); ++a) {
        for (std::size_t b = a + 1; b < names.size(); ++b) {
          pairs.push_back(pair_overlap(scores, name, a, b));
        }
      }
      list.push_back({{"name", name}, {"pairs", std::move(pairs)}});
    }
  }
  return {{"names", std::move(names)}, {"scores", std::move(list)}};
}

Json cost_of(const CutCurve& curve) {
  Json shares = Json::array();
  Json costs = Json::array();
  for (std::size_t i = 0; i < curve.kept.size(); ++i) {
    shares.push_back(rounded(100 * curve.kept[i]));
    costs.push_back(rounded(curve.nats[i]));
  }
  return {
      {"name", curve.score},
      {"kept", shares},
      {"nats", costs},
      {"knee", rounded(100 * curve.knee())}};
}

// Which experts each file's tokens chose: shares of its layer's choices, in
// percent, by file, layer and expert.
Json choices_by_file(const artifact::ScoreFile& scores) {
  Json data = {{"names", Json::array()}, {"shares", Json::array()}};
  if (!scores.run.contains("by_file")) return data;
  for (const Json& json : scores.run["by_file"]) {
    const FileChoices file = FileChoices::from_json(json);
    Json layers = Json::array();
    for (const std::vector<std::int64_t>& counts : file.choices) {
      const auto sum =
          std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
      Json row = Json::array();
      for (const std::int64_t count : counts) {
        row.push_back(rounded(
            100.0 * static_cast<double>(count) /
            static_cast<double>(std::max<std::int64_t>(sum, 1))));
      }
      layers.push_back(std::move(row));
    }
    data["names"].push_back(file.file);
    data["shares"].push_back(std::move(layers));
  }
  return data;
}

}  // namespace

std::vector<double> importance(
    const artifact::LayerScores& layer, const std::string& name) {
  const auto found = layer.expert.find(name);
  if (found != layer.expert.end()) return to_vector(found->second);
  return expert_sums(layer, layer.neuron.at(name));
}

Json report_data(const artifact::ScoreFile& scores) {
  Json data = {{"scores", Json::array()}, {"kept", Json::array()}};
  for (const std::string& name : scores.all_scores()) {
    data["scores"].push_back(
        {{"name", name}, {"rows", rows(scores, [&](std::size_t l) {
                            return importance(scores.layers[l], name);
                          })}});
  }
  for (const std::string& name : scores.neuron_scores()) {
    data["kept"].push_back(
        {{"name", name}, {"rows", kept_widths(scores, name)}});
  }
  data["load"] =
      rows(scores, [&](std::size_t l) { return load(scores.layers[l]); });
  data["entropy"] = column(scores, [](const artifact::LayerScores& layer) {
    return layer.router_entropy;
  });
  data["spread"] = column(scores, load_entropy);
  data["even"] = column(scores, [](const artifact::LayerScores& layer) {
    return std::log(static_cast<double>(layer.num_experts()));
  });
  data["overlap"] = overlaps(scores);
  data["cost"] = Json::array();
  for (const CutCurve& curve : cut_curves(scores)) {
    data["cost"].push_back(cost_of(curve));
  }
  data["by_file"] = choices_by_file(scores);
  return data;
}

}  // namespace fettle::analyze
