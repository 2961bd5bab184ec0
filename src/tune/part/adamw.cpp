// SPDX-License-Identifier: Apache-2.0
#include "tune/part/adamw.h"

#include <cmath>

#include "core/error.h"
#include "tune/part/row_pieces.h"

namespace fettle::tune {

namespace {

// The rows' ages [n], or [1] where all are alike, as most are.
at::Tensor ages_of(const at::Tensor& age) {
  if (age.size(0) == 0) return age;
  const auto [least, most] = at::aminmax(age);
  const bool alike = least.item<std::int64_t>() == most.item<std::int64_t>();
  return (alike ? age.narrow(0, 0, 1) : age).to(at::kLong);
}

// 1 - beta^age, as [n, 1] in fp64 on the CPU. Powers are taken once an age:
// rows are many.
at::Tensor bias_correction(double beta, const at::Tensor& ages) {
  if (ages.size(0) == 0) return at::ones({0, 1}, at::kDouble);
  const at::Tensor by_age =
      at::pow(
          at::scalar_tensor(beta, at::kDouble),
          at::arange(ages.max().item<std::int64_t>() + 1, at::kDouble))
          .neg_()
          .add_(1.0);
  return by_age.index_select(0, ages).unsqueeze(1);
}

struct Corrections {
  at::Tensor step, root;  // [n, 1] or [1, 1]
};

// values -= step * first / (sqrt(second) / root + epsilon)
void step_piece(
    const AdamWOptions& options,
    double learning_rate,
    const at::Tensor& gradient,
    const at::Tensor& values,
    const AdamWState& state,
    const Corrections& by) {
  values.mul_(1.0 - learning_rate * options.weight_decay);
  state.first.lerp_(gradient, 1.0 - options.beta1);
  state.second.mul_(options.beta2)
      .addcmul_(gradient, gradient, 1.0 - options.beta2);
  at::Tensor change = state.second.sqrt();
  change.div_(by.root).add_(options.epsilon);
  at::div_out(change, state.first, change);
  values.sub_(change.mul_(by.step));
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
  if (state.first.is_meta()) {
    state.age.add_(1);
    return;
  }
  FETTLE_ASSERT(values.sizes() == gradient.sizes());
  FETTLE_ASSERT(values.sizes() == state.first.sizes());
  const at::NoGradGuard no_grad;
  state.age.add_(1);
  const at::Tensor ages = ages_of(state.age);
  const at::Tensor step =
      bias_correction(options.beta1, ages).reciprocal_().mul_(learning_rate);
  const at::Tensor root = bias_correction(options.beta2, ages).sqrt_();

  const Corrections all{
      step.to(values.device(), at::kFloat),
      root.to(values.device(), at::kFloat)};
  const std::int64_t rows = values.size(-2);
  for (const auto& [first, count] : row_pieces(values, -2)) {
    const auto some = [first, count, rows](const at::Tensor& t) {
      return t.size(-2) == rows ? t.narrow(-2, first, count) : t;
    };
    step_piece(
        options,
        learning_rate,
        some(gradient),
        some(values),
        {some(state.first), some(state.second), {}},
        {some(all.step), some(all.root)});
  }
}

}  // namespace fettle::tune
