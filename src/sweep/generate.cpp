// SPDX-License-Identifier: Apache-2.0
#include "sweep/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/rng.h"
#include "model/layers/decoder_layer.h"

namespace fettle::sweep {
namespace {

class Decoder {
 public:
  // For `tokens` tokens in all.
  Decoder(model::CausalLm& model, std::int64_t tokens)
      : model_(model), states_(model.config().layers.size()) {
    for (model::LayerState& state : states_) state.cache.reserve = tokens;
  }

  // Passes `ids` behind what was passed before; logits [V] after the last.
  at::Tensor step(const std::vector<std::int32_t>& ids) {
    model::TokenBatch tokens = packed(ids);
    const std::int64_t layers = model_.config().num_layers();
    const std::int64_t length = past_ + tokens.tokens();
    const model::MicroBatch part = model::make_part_of_sequence(
        model_.config(), std::move(tokens), length);
    at::Tensor x = model::embed(model_, part.tokens.ids);
    for (std::int64_t l = 0; l < layers; ++l) {
      const auto weights = model_.acquire(l, (l + 1) % layers);
      const model::LayerContext context{
          .config = model_.config(),
          .layer = l,
          .batch = part,
          .state = &states_[l]};
      x = model::decoder_layer(context, *weights, x);
    }
    past_ = length;
    return model::logits(model_, x.narrow(0, x.size(0) - 1, 1))
        .squeeze(0)
        .to(at::kCPU);
  }

 private:
  model::TokenBatch packed(const std::vector<std::int32_t>& ids) const {
    model::Sequence sequence{ids, ids, {}};
    auto tokens = model::pack({sequence}, model_.config().vocab_size);
    tokens.positions.add_(past_);
    return tokens.to(model_.options().device);
  }

  model::CausalLm& model_;
  std::vector<model::LayerState> states_;
  std::int64_t past_ = 0;
};

// Nucleus sampling (Holtzman et al. 2020) over softmax(logits / temperature).
std::int32_t sample(
    const at::Tensor& logits, const GenerateOptions& options, Rng& rng) {
  if (options.temperature <= 0) {
    return logits.argmax().item<std::int32_t>();
  }
  const auto [probs, order] =
      (logits.to(at::kDouble) / options.temperature).softmax(0).sort(0, true);
  const auto* p = probs.const_data_ptr<double>();
  const auto* id = order.const_data_ptr<std::int64_t>();
  const std::int64_t vocab = logits.size(0);
  std::int64_t kept = 0;
  double mass = 0;
  while (kept < vocab && (kept == 0 || mass < options.top_p)) mass += p[kept++];
  double target = rng.uniform() * mass;
  std::int64_t i = 0;
  while (i + 1 < kept && target >= p[i]) target -= p[i++];
  return static_cast<std::int32_t>(id[i]);
}

void check(
    const model::ModelConfig& config,
    const std::vector<std::int32_t>& prompt,
    const GenerateOptions& options) {
  if (prompt.empty()) {
    throw UserError("generate", "--prompt", "holds no token to begin from");
  }
  const auto total =
      static_cast<std::int64_t>(prompt.size()) + options.max_new_tokens;
  if (total > config.max_position) {
    throw UserError(
        "generate",
        "--max-new-tokens",
        fmt::format(
            "{} prompt tokens and {} new ones pass the model's "
            "max_position_embeddings of {}; ask for fewer",
            prompt.size(),
            options.max_new_tokens,
            config.max_position));
  }
}

}  // namespace

GenerateResult generate(
    model::CausalLm& model,
    const std::vector<std::int32_t>& prompt,
    const GenerateOptions& options,
    const std::function<void(std::int32_t)>& on_token) {
  check(model.config(), prompt, options);
  const at::NoGradGuard no_grad;
  const auto given = static_cast<std::int64_t>(prompt.size());
  Decoder decoder(model, given + options.max_new_tokens);
  Rng rng(options.seed);
  GenerateResult result;
  if (options.max_new_tokens == 0) return result;
  at::Tensor logits = decoder.step(prompt);
  const auto begin = std::chrono::steady_clock::now();
  while (true) {
    const std::int32_t id = sample(logits, options, rng);
    result.ids.push_back(id);
    on_token(id);
    const auto made = static_cast<std::int64_t>(result.ids.size());
    if (made == options.max_new_tokens) break;
    if (std::ranges::count(options.ends, id) > 0) break;
    logits = decoder.step({id});
  }
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - begin;
  result.tokens_per_second =
      static_cast<double>(result.ids.size()) / seconds.count();
  return result;
}

}  // namespace fettle::sweep
