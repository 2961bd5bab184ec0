// SPDX-License-Identifier: Apache-2.0
// From final hidden states to losses, a chunk of rows at a time, so that the
// logits of a whole micro-batch never exist. Only scored rows are multiplied
// with the vocabulary.
#pragma once

#include <ATen/ATen.h>

#include "model/causal_lm.h"

namespace fettle::sweep {

// Rows whose logits exist at one time.
inline constexpr std::int64_t kHeadRows = 512;

struct HeadResult {
  at::Tensor nll;       // [N] fp32 on the CPU, 0 where the target is -100
  at::Tensor d_hidden;  // [N, H], or undefined
};

// hidden: [N, H] before the final norm, targets: [N].
HeadResult head_nll(
    const model::CausalLm& model,
    const at::Tensor& hidden,
    const at::Tensor& targets);

// Also the gradient of `scale` x (sum of the NLLs).
HeadResult head_nll_with_gradient(
    const model::CausalLm& model,
    const at::Tensor& hidden,
    const at::Tensor& targets,
    double scale);

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
