// SPDX-License-Identifier: Apache-2.0
#include "decode/sequence_pass.h"

#include <algorithm>

#include <utility>

#include "core/error.h"
#include "model/layers/decoder_layer.h"

namespace fettle::decode {
namespace {

model::MicroBatch batch_of(
    const model::CausalLm& model, std::span<const SequencePart> parts) {
  std::vector<model::Sequence> sequences;
  std::vector<std::int64_t> lengths;
  for (const SequencePart& part : parts) {
    FETTLE_ASSERT(!part.ids.empty());
    std::vector<std::int32_t> ids(part.ids.begin(), part.ids.end());
    sequences.push_back({ids, ids, {}});
    lengths.push_back(part.state->length() + std::ssize(part.ids));
  }
  model::TokenBatch tokens = model::pack(sequences, model.config().vocab_size);
  for (std::size_t s = 0; s < parts.size(); ++s) {
    tokens.positions
        .narrow(0, tokens.starts[s], tokens.starts[s + 1] - tokens.starts[s])
        .add_(parts[s].state->length());
  }
  return model::make_parts_of_sequences(
      model.config(), tokens.to(model.options().device), lengths);
}

// The final hidden states [N, H] of all tokens.
at::Tensor hidden_of(
    const PassedModel& what,
    const model::MicroBatch& batch,
    std::span<const SequencePart> parts) {
  model::CausalLm& model = what.model;
  const std::int64_t layers = model.config().num_layers();
  std::vector<model::LayerState*> states(parts.size());
  at::Tensor x = model::embed(model, batch.tokens.ids);
  for (std::int64_t l = 0; l < layers; ++l) {
    const auto weights = model.acquire(l, (l + 1) % layers);
    for (std::size_t s = 0; s < parts.size(); ++s) {
      states[s] = &parts[s].state->layer(l);
    }
    x = model::decoder_layer(
        {.config = model.config(),
         .layer = l,
         .batch = batch,
         .states = states,
         .activations = what.activations},
        *weights,
        x);
  }
  for (const SequencePart& part : parts) {
    part.state->grow(std::ssize(part.ids));
  }
  return x;
}

}  // namespace

SequenceState::SequenceState(
    const model::ModelConfig& config, std::int64_t tokens)
    : layers_(config.layers.size()) {
  for (model::LayerState& state : layers_) state.cache.reserve = tokens;
}

at::Tensor pass(const PassedModel& what, std::span<const SequencePart> parts) {
  const at::NoGradGuard no_grad;
  const model::MicroBatch batch = batch_of(what.model, parts);
  const at::Tensor x = hidden_of(what, batch, parts);
  if (batch.tokens.tokens() == batch.tokens.sequences()) {
    return model::decoded_logits(what.model, x).to(at::kCPU);
  }
  std::vector<at::Tensor> last;
  for (std::size_t s = 0; s < parts.size(); ++s) {
    last.push_back(x.narrow(0, batch.tokens.starts[s + 1] - 1, 1));
  }
  return model::decoded_logits(
             what.model, last.size() == 1 ? last[0] : at::cat(last, 0))
      .to(at::kCPU);
}

void pass_each(
    const PassedModel& what,
    const SequencePart& part,
    const std::function<void(const at::Tensor& logits)>& take) {
  // Logits of few tokens at a time: a vocabulary is wide.
  constexpr std::int64_t kRows = 8;
  const at::NoGradGuard no_grad;
  const at::Tensor x =
      hidden_of(what, batch_of(what.model, {&part, 1}), {&part, 1});
  const auto held = what.model.lm_head();  // for all rows
  for (std::int64_t i = 0; i < x.size(0); i += kRows) {
    const at::Tensor rows = x.narrow(0, i, std::min(kRows, x.size(0) - i));
    const at::Tensor logits =
        model::decoded_logits(what.model, rows).to(at::kCPU);
    for (std::int64_t r = 0; r < logits.size(0); ++r) take(logits[r]);
  }
}

void pass_silently(
    const PassedModel& what, std::span<const SequencePart> parts) {
  const at::NoGradGuard no_grad;
  hidden_of(what, batch_of(what.model, parts), parts);
}

}  // namespace fettle::decode
