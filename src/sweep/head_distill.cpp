// SPDX-License-Identifier: Apache-2.0
#include "core/error.h"
#include "kernels/rms_norm.h"
#include "sweep/head.h"
#include "sweep/head_chunks.h"

namespace fettle::sweep {
namespace {

// Turns `logits` [n, V] into the gradient of nll and kl, and fills those [n].
// With p the model's probabilities, q the teacher's, and r their sums over all
// tokens outside the teacher's: d kl / d z_v is p_v - q_v for the teacher's
// tokens and p_v (1 - q_r / p_r) for the others.
void losses_with_gradient_(
    at::Tensor& logits,
    const at::Tensor& targets,
    const TeacherRows& teacher,
    const DistillScale& scale,
    at::Tensor& nll,
    at::Tensor& kl) {
  // Less than this is left by rounding.
  constexpr double kLeast = 1e-12;
  const at::Tensor target = targets.unsqueeze(1);
  logits.sub_(logits.logsumexp(-1, true));
  nll = logits.gather(1, target).squeeze(1).neg();
  const at::Tensor log_p = logits.gather(1, teacher.ids);
  at::Tensor& p = logits.exp_();
  const at::Tensor top = p.gather(1, teacher.ids);
  const at::Tensor q = teacher.log_probs.exp();
  p.scatter_(1, teacher.ids, 0.0);
  const at::Tensor p_rest = p.sum(-1).clamp_min(kLeast);
  const at::Tensor q_rest = teacher.rest.clamp_min(kLeast);
  kl = (q * (teacher.log_probs - log_p)).sum(-1) +
       q_rest * (q_rest.log() - p_rest.log());
  const at::Tensor outside =
      (1.0 - q_rest / p_rest).mul_(scale.kl).add_(scale.nll).unsqueeze(1);
  p.mul_(outside);
  p.scatter_(1, teacher.ids, top * (scale.nll + scale.kl) - q * scale.kl);
  p.scatter_add_(1, target, at::full_like(target, -scale.nll, p.options()));
}

}  // namespace

TeacherRows TeacherRows::narrow(std::int64_t first, std::int64_t count) const {
  return {
      ids.narrow(0, first, count),
      log_probs.narrow(0, first, count),
      rest.narrow(0, first, count)};
}

TeacherRows TeacherRows::rows(const at::Tensor& index) const {
  return {
      ids.index_select(0, index),
      log_probs.index_select(0, index),
      rest.index_select(0, index)};
}

TeacherRows TeacherRows::to(at::Device device) const {
  return {ids.to(device), log_probs.to(device), rest.to(device)};
}

TeacherRows head_teacher(
    const model::CausalLm& model,
    const at::Tensor& hidden,
    const at::Tensor& targets,
    std::int64_t k) {
  FETTLE_ASSERT(k >= 1 && k <= model.config().vocab_size);
  const at::NoGradGuard no_grad;
  const std::int64_t n = hidden.size(0);
  const auto floats = hidden.options().dtype(at::kFloat);
  TeacherRows result{
      at::zeros({n, k}, floats.dtype(at::kLong)),
      at::zeros({n, k}, floats),
      at::zeros({n}, floats)};
  for_each_chunk(model, targets, [&](const at::Tensor& rows) {
    at::Tensor logits = chunk_logits(model, hidden, rows);
    logits.sub_(logits.logsumexp(-1, true));
    const auto [values, ids] = logits.topk(k, -1);
    result.ids.index_copy_(0, rows, ids);
    result.log_probs.index_copy_(0, rows, values);
    result.rest.index_copy_(
        0, rows, logits.exp_().scatter_(1, ids, 0.0).sum(-1));
  });
  return result.to(at::kCPU);
}

DistillResult head_distill_with_gradient(
    const model::CausalLm& model,
    const HeadInput& input,
    const TeacherRows& teacher,
    const DistillScale& scale) {
  const at::NoGradGuard no_grad;
  const at::Tensor& hidden = input.hidden;
  const auto floats = hidden.options().dtype(at::kFloat);
  at::Tensor nll = at::zeros({hidden.size(0)}, floats);
  at::Tensor kl = at::zeros({hidden.size(0)}, floats);
  at::Tensor d_hidden = at::zeros_like(hidden);
  for_each_chunk(model, input.targets, [&](const at::Tensor& rows) {
    HeadChunk chunk(model, hidden, rows);
    at::Tensor logits = chunk.logits().to(at::kFloat);
    at::Tensor chunk_nll, chunk_kl;
    losses_with_gradient_(
        logits,
        input.targets.index_select(0, rows),
        teacher.rows(rows.cpu()).to(hidden.device()),
        scale,
        chunk_nll,
        chunk_kl);
    nll.index_copy_(0, rows, chunk_nll);
    kl.index_copy_(0, rows, chunk_kl);
    d_hidden.index_copy_(0, rows, chunk.backward(logits, input.observers));
  });
  return {nll.to(at::kCPU), kl.to(at::kCPU), d_hidden};
}

}  // namespace fettle::sweep
