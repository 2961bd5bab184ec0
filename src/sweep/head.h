// SPDX-License-Identifier: Apache-2.0
// From final hidden states to losses, a chunk of rows at a time, so that the
// logits of a whole micro-batch never exist. Only scored rows are multiplied
// with the vocabulary.
#pragma once

#include <ATen/ATen.h>

#include <span>

#include "model/causal_lm.h"
#include "sweep/observer.h"

namespace fettle::sweep {

// Rows whose logits exist at one time: 512, or fewer of a large vocabulary,
// whose logits would take more memory than the head.
std::int64_t head_rows(std::int64_t vocab_size);

struct HeadResult {
  at::Tensor nll;       // [N] fp32 on the CPU, 0 where the target is -100
  at::Tensor d_hidden;  // [N, H], or undefined
};

// hidden: [N, H] before the final norm, targets: [N].
HeadResult head_nll(
    const model::CausalLm& model,
    const at::Tensor& hidden,
    const at::Tensor& targets);

// Rows on their way through the head and back.
struct HeadInput {
  at::Tensor hidden;   // [N, H] before the final norm
  at::Tensor targets;  // [N]
  // Observers that want the gradients of the head's weights are shown them.
  std::span<Observer* const> observers = {};
};

// Also the gradient of `scale` x (sum of the NLLs).
HeadResult head_nll_with_gradient(
    const model::CausalLm& model, const HeadInput& input, double scale);

// The token of each row of `logits` [n, V] that a uniform number of `draws` [n]
// in [0, 1) falls on: [n] int64.
at::Tensor drawn_targets(const at::Tensor& logits, const at::Tensor& draws);

// Like head_nll_with_gradient, at the scored positions, for targets that the
// model draws itself: the gradient's second moment is then the Fisher
// information, whatever the text. draws: [N] fp32.
HeadResult head_drawn_with_gradient(
    const model::CausalLm& model,
    const HeadInput& input,
    const at::Tensor& draws);

// A teacher's prediction of the next token at each of N positions: k likeliest
// tokens, and what is left for all others. Positions that aren't scored hold
// anything.
struct TeacherRows {
  at::Tensor ids;        // [N, k] int64, distinct in a row
  at::Tensor log_probs;  // [N, k] fp32
  at::Tensor rest;       // [N] fp32: probability of all other tokens

  TeacherRows narrow(std::int64_t first, std::int64_t count) const;
  TeacherRows rows(const at::Tensor& index) const;
  TeacherRows to(at::Device device) const;
};

// The model as a teacher; the result is on the CPU. `k` is at most the
// vocabulary.
TeacherRows head_teacher(
    const model::CausalLm& model,
    const at::Tensor& hidden,
    const at::Tensor& targets,
    std::int64_t k);

struct DistillResult {
  at::Tensor nll;       // [N] fp32 on the CPU, 0 where the target is -100
  at::Tensor kl;        // likewise
  at::Tensor d_hidden;  // [N, H]
};

// How much each loss counts.
struct DistillScale {
  double nll = 0.0;
  double kl = 1.0;
};

// The NLL of the targets and KL(teacher || model) over k + 1 outcomes, the last
// being any token that is not one of the teacher's k: never more than the KL
// over the vocabulary, and equal to it for k = V. Also the gradient of the
// scaled sum of both.
DistillResult head_distill_with_gradient(
    const model::CausalLm& model,
    const HeadInput& input,
    const TeacherRows& teacher,
    const DistillScale& scale);

struct Comparison {
  at::Tensor kl;    // [N] fp32 on the CPU: KL(teacher || student) in nats
  at::Tensor top1;  // [N] bool: whether both rank the same token first
};

// Both undefined positions (target -100) give 0 and false. The two models must
// have one vocabulary.
Comparison head_compare(
    const model::CausalLm& student,
    const at::Tensor& student_hidden,
    const model::CausalLm& teacher,
    const at::Tensor& teacher_hidden,
    const at::Tensor& targets);

}  // namespace fettle::sweep
