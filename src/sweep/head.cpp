// SPDX-License-Identifier: Apache-2.0
#include "sweep/head.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/cross_entropy.h"
#include "kernels/rms_norm.h"
#include "sweep/head_chunks.h"

namespace fettle::sweep {

std::int64_t head_rows(std::int64_t vocab_size) {
  constexpr std::int64_t kMost = 512;
  constexpr std::int64_t kLogits = std::int64_t{1} << 25;
  constexpr std::int64_t kTogether = 32;  // rows that products take well
  const std::int64_t few = kLogits / vocab_size / kTogether * kTogether;
  return std::clamp(few, kTogether, kMost);
}

void for_each_chunk(
    const model::CausalLm& model,
    const at::Tensor& targets,
    const std::function<void(const at::Tensor& rows)>& chunk) {
  const std::int64_t most = head_rows(model.config().vocab_size);
  const at::Tensor scored = targets.ge(0).nonzero().squeeze(1);
  for (std::int64_t i = 0; i < scored.size(0); i += most) {
    chunk(scored.narrow(0, i, std::min(most, scored.size(0) - i)));
  }
}

at::Tensor chunk_logits(
    const model::CausalLm& model,
    const at::Tensor& hidden,
    const at::Tensor& rows) {
  return model::logits(model, hidden.index_select(0, rows));
}

HeadChunk::HeadChunk(
    const model::CausalLm& model,
    const at::Tensor& hidden,
    const at::Tensor& rows)
    : model_(model),
      lm_head_(model.lm_head()),
      hidden_(hidden.index_select(0, rows)) {
  auto normed = kernels::rms_norm(
      hidden_,
      model.globals().final_norm,
      model.config().norm_eps,
      {.offset = model.config().norm_offset});
  normed_ = std::move(normed.y);
  rstd_ = std::move(normed.rstd);
}

at::Tensor HeadChunk::logits() {
  const model::EndsConfig& ends = model_.config().ends;
  at::Tensor products = at::mm(normed_, lm_head_->t());
  if (ends.logits_scaling != 1.0) products.div_(ends.logits_scaling);
  if (ends.soft_cap == 0.0) return products;
  tanh_ = products.div_(ends.soft_cap).tanh_();
  return tanh_ * ends.soft_cap;
}

at::Tensor HeadChunk::through_ends(const at::Tensor& d_logits) const {
  const double scaling = model_.config().ends.logits_scaling;
  at::Tensor result = d_logits;
  if (tanh_.defined()) result = at::tanh_backward(result, tanh_);
  return scaling == 1.0 ? result : result / scaling;
}

at::Tensor HeadChunk::backward(
    const at::Tensor& d_logits, std::span<Observer* const> observers) const {
  const at::Tensor d_products = through_ends(d_logits);
  const at::Tensor d_normed =
      at::mm(d_products.to(hidden_.scalar_type()), *lm_head_);
  const bool wanted = std::ranges::any_of(
      observers, [](const Observer* o) { return o->wants_global_gradients(); });
  const auto gradients = kernels::rms_norm_backward(
      d_normed,
      hidden_,
      model_.globals().final_norm,
      rstd_,
      {.offset = model_.config().norm_offset, .weight_gradient = wanted});
  for (Observer* o : observers) {
    if (!o->wants_global_gradients()) continue;
    o->on_head_gradient({normed_, d_products, gradients.dw});
  }
  return gradients.dx;
}

HeadResult head_nll(
    const model::CausalLm& model,
    const at::Tensor& hidden,
    const at::Tensor& targets) {
  const at::NoGradGuard no_grad;
  at::Tensor nll =
      at::zeros({hidden.size(0)}, hidden.options().dtype(at::kFloat));
  for_each_chunk(model, targets, [&](const at::Tensor& rows) {
    const at::Tensor logits = HeadChunk(model, hidden, rows).logits();
    nll.index_copy_(
        0, rows, kernels::cross_entropy(logits, targets.index_select(0, rows)));
  });
  return {nll.to(at::kCPU), at::Tensor()};
}

HeadResult head_nll_with_gradient(
    const model::CausalLm& model, const HeadInput& input, double scale) {
  return nll_with_gradient(
      model, input, scale, [&](const at::Tensor&, const at::Tensor& rows) {
        return input.targets.index_select(0, rows);
      });
}

HeadResult nll_with_gradient(
    const model::CausalLm& model,
    const HeadInput& input,
    double scale,
    const ChunkTargets& targets) {
  const at::NoGradGuard no_grad;
  const at::Tensor& hidden = input.hidden;
  at::Tensor nll =
      at::zeros({hidden.size(0)}, hidden.options().dtype(at::kFloat));
  at::Tensor d_hidden = at::zeros_like(hidden);
  for_each_chunk(model, input.targets, [&](const at::Tensor& rows) {
    HeadChunk chunk(model, hidden, rows);
    at::Tensor logits = chunk.logits();
    const at::Tensor chosen = targets(logits, rows);
    nll.index_copy_(
        0, rows, kernels::cross_entropy_with_gradient_(logits, chosen, scale));
    d_hidden.index_copy_(0, rows, chunk.backward(logits, input.observers));
  });
  return {nll.to(at::kCPU), d_hidden};
}

Comparison head_compare(
    const model::CausalLm& student,
    const at::Tensor& student_hidden,
    const model::CausalLm& teacher,
    const at::Tensor& teacher_hidden,
    const at::Tensor& targets) {
  FETTLE_ASSERT(student.config().vocab_size == teacher.config().vocab_size);
  const at::NoGradGuard no_grad;
  const std::int64_t tokens = targets.size(0);
  Comparison result{
      at::zeros({tokens}, student_hidden.options().dtype(at::kFloat)),
      at::zeros({tokens}, student_hidden.options().dtype(at::kBool))};
  for_each_chunk(student, targets, [&](const at::Tensor& rows) {
    const at::Tensor p =
        chunk_logits(teacher, teacher_hidden, rows).log_softmax(-1);
    const at::Tensor q =
        chunk_logits(student, student_hidden, rows).log_softmax(-1);
    result.kl.index_copy_(0, rows, (p.exp() * (p - q)).sum(-1));
    result.top1.index_copy_(0, rows, p.argmax(-1).eq(q.argmax(-1)));
  });
  return {result.kl.to(at::kCPU), result.top1.to(at::kCPU)};
}

}  // namespace fettle::sweep
