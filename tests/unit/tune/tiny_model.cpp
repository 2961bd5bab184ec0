// SPDX-License-Identifier: Apache-2.0
#include "tiny_model.h"

#include "artifact/tensor_file.h"
#include "core/rng.h"
#include "io/checkpoint_writer.h"
#include "io/file.h"
#include "model/family/weight_table.h"
#include "sweep/micro_batches.h"
#include "sweep/sweep.h"

namespace fettle::tune::testing {

namespace {

namespace fs = std::filesystem;

Json config_of(const TinyModel& tiny) {
  const auto experts = [](std::vector<std::int64_t> widths) {
    return Json{
        {"top_k", 2}, {"expert_widths", widths}, {"has_constants", false}};
  };
  return {
      {"model_type", "qwen3_moe"},
      {"vocab_size", tiny.vocab},
      {"tie_word_embeddings", tiny.tied},
      {"hidden_size", kHidden},
      {"num_hidden_layers", 3},
      {"num_attention_heads", 2},
      {"num_key_value_heads", 1},
      {"head_dim", 8},
      {"max_position_embeddings", 64},
      {"num_experts_per_tok", 2},
      {"num_experts", 4},
      {"intermediate_size", 12},
      {"moe_intermediate_size", 6},
      {"mlp_only_layers", {0}},
      {"norm_topk_prob", true},
      {"hidden_act", "silu"},
      {"fettle",
       {{"format", 1},
        {"layers", {nullptr, experts({6, 0, 4, 6}), experts({5, 3, 6, 2})}}}}};
}

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, Rng& rng) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  float* values = tensor.data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    values[i] = static_cast<float>(rng.normal());
  }
  return shape.size() == 1 ? tensor.mul_(0.1).add_(1.0) : tensor.mul_(0.3);
}

// The first of a token's hidden values is far above 0, and the head's row for
// the impossible token is far below there.
void make_impossible(model::Role role, std::int64_t token, at::Tensor& values) {
  if (role == model::Role::kEmbedTokens) values.select(1, 0).fill_(10.0);
  if (role != model::Role::kLmHead) return;
  values[token].zero_();
  values[token][0].fill_(-3e38);
}

}  // namespace

void write_tiny_model(const fs::path& folder, int seed) {
  write_tiny_model(folder, TinyModel{.seed = seed});
}

void write_tiny_model(const fs::path& folder, const TinyModel& tiny) {
  fs::create_directories(folder);
  const Json json = config_of(tiny);
  const model::ModelConfig config =
      model::parse_model_config(json, "config.json");
  Rng rng(static_cast<std::uint64_t>(tiny.seed));
  std::vector<io::TensorSpec> specs;
  std::vector<at::Tensor> tensors;
  for (const model::WeightId& id : model::model_weights(config)) {
    const auto shape = model::weight_shape(config, id);
    const bool is_router = id.role == model::Role::kRouter;
    tensors.push_back(random_tensor(shape, rng)
                          .mul_(is_router ? 2.0 : 1.0)
                          .to(is_router ? at::kFloat : at::kBFloat16));
    if (tiny.impossible >= 0) {
      make_impossible(id.role, tiny.impossible, tensors.back());
    }
    specs.push_back(
        {model::weight_name(config, id),
         is_router ? io::DType::kF32 : io::DType::kBF16,
         shape});
  }
  io::CheckpointWriter writer(folder, specs);
  for (std::size_t i = 0; i < specs.size(); ++i) {
    writer.write(specs[i].name, artifact::tensor_bytes(tensors[i]));
  }
  writer.finish();
  io::write_file(folder / "config.json", json.dump());
}

std::unique_ptr<model::CausalLm> open_model(const fs::path& folder) {
  model::ModelOptions options;
  options.resident_bytes = std::int64_t{1} << 30;
  return std::make_unique<model::CausalLm>(folder, options);
}

text::Sample sample(std::int64_t tokens, std::uint64_t seed) {
  Rng rng(seed, 7);
  text::Sample made;
  std::int32_t id = static_cast<std::int32_t>(rng.below(kVocab));
  for (std::int64_t t = 0; t < tokens; ++t) {
    made.ids.push_back(id);
    // Mostly a cycle, so that there is something to learn.
    id = rng.uniform() < 0.8 ? (id * 5 + 3) % kVocab
                             : static_cast<std::int32_t>(rng.below(kVocab));
  }
  made.labels = made.ids;
  return made;
}

text::Mixture mixture(std::int64_t seq_len, std::uint64_t seed, double weight) {
  text::WeightedSamples a{"a.jsonl", weight, {}};
  text::WeightedSamples b{"b.jsonl", 1.0, {}};
  for (std::uint64_t i = 0; i < 9; ++i) {
    a.samples.push_back(sample(5 + static_cast<std::int64_t>(i) * 3, i));
    b.samples.push_back(sample(20, 100 + i));
  }
  return text::Mixture({a, b}, {.seed = seed, .seq_len = seq_len});
}

std::vector<model::Sequence> sequences(
    std::int64_t count, std::int64_t tokens) {
  std::vector<model::Sequence> made;
  for (std::int64_t i = 0; i < count; ++i) {
    const text::Sample one =
        sample(tokens, 1000 + static_cast<std::uint64_t>(i));
    made.push_back({one.ids, one.labels, {}});
  }
  return made;
}

at::Tensor logits_of(model::CausalLm& model) {
  const auto batches = sweep::micro_batches(sequences(2, 12), 64, kVocab);
  sweep::Sweep sweep(model, batches, {});
  sweep.forward({}, {.keep_boundaries = false});
  return model::logits(model, sweep.hidden(0));
}

}  // namespace fettle::tune::testing
