// SPDX-License-Identifier: Apache-2.0
// Logits and gradients of a model, for comparison with transformers:
//   fettle_probe logits|gradients MODEL IDS.json OUT.safetensors DEVICE
// IDS.json is a list of sequences of token ids. "logits" holds the fp32 logits
// of all tokens, one sequence after the other. "gradients" writes those too,
// and under each weight's Hugging Face name the gradient of "loss", the mean
// over tokens.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "artifact/tensor_file.h"
#include "cli/end_process.h"
#include "core/error.h"
#include "core/json.h"
#include "kernels/device_backend.h"
#include "model/causal_lm.h"
#include "model/layers/decoder_layer.h"
#include "model/layers/token_batch.h"
#include "model/weights/weight_view.h"
#include "model/weights/weight_visit.h"

namespace {

using namespace fettle;

model::TokenBatch read_ids(const std::string& path, std::int64_t vocab) {
  std::vector<model::Sequence> sequences;
  for (const Json& ids : read_json(path, "probe")) {
    model::Sequence sequence;
    sequence.ids = ids.get<std::vector<std::int32_t>>();
    sequence.labels = sequence.ids;
    sequences.push_back(std::move(sequence));
  }
  return model::pack(sequences, vocab);
}

using Layers = std::vector<std::shared_ptr<model::LayerWeights>>;

Layers acquire_layers(model::CausalLm& lm) {
  Layers layers;
  for (std::int64_t l = 0; l < lm.config().num_layers(); ++l) {
    layers.push_back(lm.acquire(l, -1));
  }
  return layers;
}

at::Tensor forward(
    const model::CausalLm& lm,
    const Layers& layers,
    const model::TokenBatch& tokens) {
  const auto batch = model::make_micro_batch(lm.config(), tokens);
  at::Tensor hidden = model::embed(lm, tokens.ids);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    hidden = model::decoder_layer(
        {lm.config(), static_cast<std::int64_t>(l), batch}, *layers[l], hidden);
  }
  return model::logits(lm, hidden);
}

// A weight that took no part in the loss has no gradient: zeros.
at::Tensor gradient_of(const at::Tensor& tensor) {
  return tensor.grad().defined() ? tensor.grad() : at::zeros_like(tensor);
}

artifact::TensorMap gradients(
    model::CausalLm& lm, const model::TokenBatch& tokens) {
  const Layers layers = acquire_layers(lm);
  model::GlobalWeights globals = lm.globals();
  const auto mark = [](at::Tensor& tensor) { tensor.requires_grad_(true); };
  for (const auto& layer : layers) model::for_each_tensor(*layer, mark);
  model::for_each_tensor(globals, mark);
  const at::Tensor loss =
      at::cross_entropy_loss(forward(lm, layers, tokens), tokens.targets);
  torch::autograd::backward({loss}, {});

  artifact::TensorMap result{{"loss", loss.detach().cpu()}};
  const auto take = [&](const model::WeightId& id, const at::Tensor& value) {
    result[model::weight_name(lm.config(), id)] =
        value.cpu()
            .clone(at::MemoryFormat::Contiguous)
            .view(model::stored_shape(lm.config(), id));
  };
  take({model::Role::kEmbedTokens}, gradient_of(globals.embed_tokens));
  take({model::Role::kFinalNorm}, gradient_of(globals.final_norm));
  if (!lm.config().tie_word_embeddings) {
    take({model::Role::kLmHead}, gradient_of(globals.lm_head));
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    model::LayerWeights grads = *layers[l];
    model::for_each_tensor(
        grads, [](at::Tensor& tensor) { tensor = gradient_of(tensor); });
    for (const model::WeightId& id :
         model::layer_weights(lm.config(), static_cast<std::int64_t>(l))) {
      take(id, model::weight_view(grads, id));
    }
  }
  return result;
}

int run(const std::vector<std::string>& args) {
  if (args.size() != 5 || (args[0] != "logits" && args[0] != "gradients")) {
    throw UsageError(
        "probe", "arguments", "logits|gradients MODEL IDS OUT DEVICE");
  }
  const at::Device device = kernels::open_device(parse_device(args[4]));
  model::CausalLm lm(args[1], {device, at::kFloat, std::int64_t{1} << 40});
  const auto tokens = read_ids(args[2], lm.config().vocab_size).to(device);
  artifact::TensorMap result;
  if (args[0] == "gradients") result = gradients(lm, tokens);
  const at::NoGradGuard no_grad;
  result["logits"] = forward(lm, acquire_layers(lm), tokens).cpu();
  artifact::save_tensors(args[3], {result, {}});
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    fettle::cli::end_process(run({argv + 1, argv + argc}));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
