// SPDX-License-Identifier: Apache-2.0
#include "analyze/cut_advice.h"

#include <fmt/format.h>

#include <algorithm>

namespace fettle::analyze {
namespace {

constexpr std::int64_t kSteps = 40;
// What another percent of the neurons may cost before the knee, in nats.
constexpr double kKneeNats = 0.001;
// Above it a cut to half is expected to be felt in what people ask of a model.
constexpr double kHurts = 0.05;

}  // namespace

double CutCurve::at(double share) const {
  for (std::size_t i = 1; i < kept.size(); ++i) {
    if (share < kept[i]) continue;
    const double part = (kept[i - 1] - share) / (kept[i - 1] - kept[i]);
    return nats[i - 1] + std::clamp(part, 0.0, 1.0) * (nats[i] - nats[i - 1]);
  }
  return nats.back();
}

double CutCurve::knee() const {
  for (std::size_t i = 1; i < kept.size(); ++i) {
    const double percents = 100 * (kept[i - 1] - kept[i]);
    if (nats[i] - nats[i - 1] > kKneeNats * percents) return kept[i - 1];
  }
  return kept.back();
}

std::string CutCurve::text() const {
  std::string text = fmt::format(
      "By {}, keeping 75 % of the neurons is expected to cost {:.2g} nats a "
      "token, 50 % {:.2g}, 25 % {:.2g}; below {:.0f} % each percent costs more "
      "than {} (the knee).",
      score,
      at(0.75),
      at(0.5),
      at(0.25),
      100 * knee(),
      kKneeNats);
  if (at(0.5) > kHurts) {
    text += fmt::format(
        " Warning: half of the neurons is expected to be too little for this "
        "model ({:.2g} nats); keep {:.0f} %, or round to fewer bits instead.",
        at(0.5),
        100 * knee());
  }
  return text;
}

CutCurve cut_curve(
    const artifact::ScoreFile& scores, const ScoreMethod& method) {
  CutCurve curve{.score = std::string(method.name)};
  std::vector<at::Tensor> all;
  for (const artifact::LayerScores& layer : scores.layers) {
    if (layer.widths.empty()) continue;
    all.push_back(layer.neuron.at(curve.score).flatten());
  }
  const at::Tensor rising = std::get<0>(at::cat(all).to(at::kDouble).sort());
  const at::Tensor sums = rising.cumsum(0);
  const std::int64_t neurons = sums.numel();
  const auto tokens =
      static_cast<double>(std::max<std::int64_t>(scores.tokens, 1));
  for (std::int64_t step = 0; step < kSteps; ++step) {
    const std::int64_t cut = neurons * step / kSteps;
    const double sum = cut == 0 ? 0.0 : sums[cut - 1].item<double>();
    curve.kept.push_back(static_cast<double>(kSteps - step) / kSteps);
    curve.nats.push_back(method.nats_per_score * sum / tokens);
  }
  return curve;
}

std::vector<CutCurve> cut_curves(const artifact::ScoreFile& scores) {
  std::vector<CutCurve> curves;
  const auto names = scores.neuron_scores();
  for (const ScoreMethod& method : score_methods()) {
    const bool found = std::ranges::find(names, method.name) != names.end();
    if (found && method.nats_per_score > 0) {
      curves.push_back(cut_curve(scores, method));
    }
  }
  return curves;
}

}  // namespace fettle::analyze
