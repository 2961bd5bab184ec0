// SPDX-License-Identifier: Apache-2.0
// The joint repair: the part of RepairSweep that fits all experts of a layer
// together.
#include <algorithm>

#include "trim/cut_layer.h"
#include "trim/joint_moments.h"
#include "trim/repair_sweep.h"

namespace fettle::trim {

void RepairSweep::pass_layer_jointly(std::int64_t layer, bool last) {
  const at::NoGradGuard no_grad;
  const auto whole = model_.acquire(layer, last ? -1 : layer + 1);
  current_ = {};
  original_->advance({model_.config(), layer, *whole});
  if (!model_.config().layers[layer].sparse) {
    stream_.advance({trimmed_, layer, *whole});
    return;
  }
  refit_jointly(layer, cut_layer(*whole, plan_.layers[layer]));
  if (!last)
    stream_.advance({trimmed_, layer, repaired_weights(layer, *whole)});
}

void RepairSweep::refit_jointly(
    std::int64_t layer, const model::LayerWeights& cut) {
  const artifact::LayerPlan& plan = plan_.layers[layer];
  JointMoments moments(
      trimmed_.layers[layer].expert_widths,
      model_.config().hidden_size,
      model_.options().device);
  stream_.look(
      {trimmed_,
       layer,
       cut,
       &moments,
       [&](const sweep::SumVisitor& visit) { moments.for_each_sum(visit); }},
      [&](std::int64_t m, const at::Tensor& outputs) {
        moments.end_micro_batch(original_->inputs(m) - outputs);
      });
  moments.end_sums();
  current_.down.resize(plan.experts.size());
  require_finite(layer, moments.error());
  if (moments.error() <= 0) return;  // nothing is cut so far
  const at::Tensor gram = moments.gram().cpu();
  const at::Tensor right = moments.right().cpu().to(at::kDouble);
  if (gram.numel() == 0) return;
  double lambda =
      options_.lambda * gram.diagonal().mean(at::kDouble).item<double>();
  require_finite(layer, lambda);
  const at::Tensor change = solve_ridge(gram, right, lambda);  // [S, H]
  const double left = moments.error() - (change * right).sum().item<double>() -
                      lambda * change.square().sum().item<double>();
  report_.error_left[layer] = std::max(left, 0.0) / moments.error();
  std::int64_t begin = 0;
  for (std::size_t e = 0; e < plan.experts.size(); ++e) {
    const artifact::ExpertPlan& expert = plan.experts[e];
    const auto width = expert.width();
    if (width == 0) continue;
    const std::int64_t tokens = moments.tokens(static_cast<std::int64_t>(e));
    ++(tokens > 0 ? report_.refitted : report_.unhit);
    report_.scarce += tokens > 0 && tokens < width ? 1 : 0;
    const at::Tensor down =
        model_.reader().read({model::Role::kExpertDown, layer, expert.expert});
    const at::Tensor kept =
        down.index_select(1, at::tensor(expert.neurons, at::kLong));
    current_.down[e] =
        (kept.to(at::kDouble) + change.narrow(0, begin, width).t())
            .to(down.scalar_type())
            .contiguous();
    begin += width;
  }
}

}  // namespace fettle::trim
