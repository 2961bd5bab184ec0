// SPDX-License-Identifier: Apache-2.0
#include "tune/adamw.h"

#include <cmath>

#include "core/error.h"

namespace fettle::tune {

namespace {

// 1 - beta^age of every row, as [n, 1] or [1, 1] in fp64 on the CPU.
at::Tensor bias_correction(double beta, const at::Tensor& age) {
  return at::pow(at::scalar_tensor(beta, at::kDouble), age.to(at::kDouble))
      .neg_()
      .add_(1.0)
      .unsqueeze(1);
}

}  // namespace

AdamWState AdamWState::zeros_like(const at::Tensor& values) {
  return {
      at::zeros_like(values),
      at::zeros_like(values),
      at::zeros({values.size(-2)}, at::kLong)};
}

void adamw_step(
    const AdamWOptions& options,
    double learning_rate,
    const at::Tensor& gradient,
    at::Tensor& values,
    AdamWState& state) {
  FETTLE_ASSERT(values.sizes() == gradient.sizes());
  FETTLE_ASSERT(values.sizes() == state.first.sizes());
  const at::NoGradGuard no_grad;
  state.age.add_(1);
  const at::Tensor step = bias_correction(options.beta1, state.age)
                              .reciprocal_()
                              .mul_(learning_rate);
  const at::Tensor root = bias_correction(options.beta2, state.age).sqrt_();

  values.mul_(1.0 - learning_rate * options.weight_decay);
  state.first.lerp_(gradient, 1.0 - options.beta1);
  state.second.mul_(options.beta2)
      .addcmul_(gradient, gradient, 1.0 - options.beta2);
  // values -= step * first / (sqrt(second) / root + epsilon)
  at::Tensor change = state.second.sqrt();
  change.div_(root.to(values.device(), at::kFloat)).add_(options.epsilon);
  at::div_out(change, state.first, change);
  values.sub_(change.mul_(step.to(values.device(), at::kFloat)));
}

}  // namespace fettle::tune
