// SPDX-License-Identifier: Apache-2.0
// One pass of some sequences' next tokens through all layers.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/causal_lm.h"
#include "model/layers/layer_context.h"
#include "model/layers/layer_state.h"

namespace fettle::decode {

// What the layers keep of a sequence.
class SequenceState {
 public:
  // Of a sequence of at most `tokens` tokens: caches are made once.
  SequenceState(const model::ModelConfig& config, std::int64_t tokens);

  std::int64_t length() const { return length_; }
  std::int64_t layers() const { return std::ssize(layers_); }
  model::LayerState& layer(std::int64_t layer) {
    return layers_[static_cast<std::size_t>(layer)];
  }
  void grow(std::int64_t tokens) { length_ += tokens; }

 private:
  std::vector<model::LayerState> layers_;
  std::int64_t length_ = 0;
};

struct PassedModel {
  model::CausalLm& model;
  model::Activations activations = model::Activations::kFull;
};

// Tokens that follow what a state holds, one at least.
struct SequencePart {
  SequenceState* state;
  std::span<const std::int32_t> ids;
};

// Passes the parts, of as many sequences, behind their states: [parts, V] fp32
// on the CPU, the logits after the last token of each. Throws UserError on a
// token outside of the vocabulary.
at::Tensor pass(const PassedModel& what, std::span<const SequencePart> parts);

// The same for one part, with the logits [V] of each of its tokens in turn.
void pass_each(
    const PassedModel& what,
    const SequencePart& part,
    const std::function<void(const at::Tensor& logits)>& take);

// The same without logits: of a prompt's chunk that others follow.
void pass_silently(
    const PassedModel& what, std::span<const SequencePart> parts);

}  // namespace fettle::decode
