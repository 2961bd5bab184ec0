// SPDX-License-Identifier: Apache-2.0
#include "trim/ridge.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "kernels/damped_cholesky.h"

namespace fettle::trim {
namespace {

struct Split {
  at::Tensor kept, cut;  // [S], [P] int64
};

Split split_neurons(const std::vector<std::int64_t>& kept, std::int64_t width) {
  at::Tensor cut = at::ones({width}, at::kBool);
  const at::Tensor index = at::tensor(kept, at::kLong);
  cut.index_fill_(0, index, false);
  return {index, cut.nonzero().view({-1})};
}

}  // namespace

at::Tensor solve_ridge(
    const at::Tensor& a, const at::Tensor& b, double& lambda) {
  const double scale = a.diagonal().mean(at::kDouble).item<double>();
  // An expert without any activation has nothing to fit.
  if (scale <= 0) return at::zeros_like(b);
  lambda = std::max(lambda, 1e-12 * scale);
  return at::cholesky_solve(b, kernels::damped_cholesky(a, lambda));
}

Refit refit_down(
    const at::Tensor& down,
    const Moments& moments,
    const std::vector<std::int64_t>& kept,
    const RefitOptions& options) {
  const at::NoGradGuard no_grad;
  const at::Tensor w = down.to(at::kDouble);
  const Split split = split_neurons(kept, w.size(1));
  const at::Tensor w_cut = w.index_select(1, split.cut);
  const bool centred = options.constant && moments.weight > 0;
  at::Tensor c = moments.second.to(at::kDouble);
  at::Tensor mean;
  if (centred) mean = moments.first.to(at::kDouble) / moments.weight;

  Refit result;
  result.down = w.index_select(1, split.kept);
  const at::Tensor c_cut = c.index_select(0, split.cut);
  result.error_before =
      (at::mm(w_cut, c_cut.index_select(1, split.cut)) * w_cut)
          .sum()
          .item<double>();
  result.error_after = result.error_before;
  if (options.constant) result.constant = at::zeros({w.size(0)}, at::kDouble);
  if (centred) {
    c = c - at::outer(mean, mean) * moments.weight;
    result.constant = at::mv(w_cut, mean.index_select(0, split.cut));
    result.error_after -=
        moments.weight * result.constant.square().sum().item<double>();
  }
  if (kept.empty() || split.cut.numel() == 0) return result;

  const at::Tensor c_kept = c.index_select(0, split.kept);
  const at::Tensor b =
      at::mm(c_kept.index_select(1, split.cut), w_cut.t());  // [S, H]
  double lambda = options.lambda;
  const at::Tensor change =
      solve_ridge(c_kept.index_select(1, split.kept), b, lambda);
  result.down.add_(change.t());
  result.error_after -= (change * b).sum().item<double>() +
                        lambda * change.square().sum().item<double>();
  if (centred) {
    result.constant.sub_(at::mv(change.t(), mean.index_select(0, split.kept)));
  }
  return result;
}

}  // namespace fettle::trim
