// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/global_gradients.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>

#include "full_gradients.h"
#include "model/layers/decoder_layer.h"
#include "model/weights/weight_view.h"
#include "sweep/micro_batches.h"
#include "tiny_model.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using model::Role;

namespace {

// Shows a sweep's gradients to some, and nothing else.
struct Watch : sweep::Observer {
  explicit Watch(GlobalGradients& of) : gradients(of) {}
  bool wants_global_gradients() const override { return true; }
  void on_head_gradient(const sweep::HeadGradView& view) override {
    CHECK(heads == 0);
    gradients.on_head_gradient(view);
  }
  void end_head() override { ++heads; }
  void on_embedding_gradient(
      const at::Tensor& ids, const at::Tensor& gradient) override {
    CHECK(heads == 1);
    gradients.on_embedding_gradient(ids, gradient);
  }
  void end_embeddings() override { ++embeddings; }

  GlobalGradients& gradients;
  int heads = 0;
  int embeddings = 0;
};

// All from autograd: the summed loss in ATen operations, but for the layers.
model::GlobalWeights gradients_by_autograd(
    model::CausalLm& model, const std::vector<model::TokenBatch>& batches) {
  const at::AutoGradMode grad(true);
  const model::ModelConfig& config = model.config();
  const auto leaf = [](const at::Tensor& value) {
    return value.detach().clone().set_requires_grad(true);
  };
  model::GlobalWeights own;
  own.embed_tokens = leaf(model.globals().embed_tokens);
  own.final_norm = leaf(model.globals().final_norm);
  own.lm_head = config.tie_word_embeddings ? own.embed_tokens
                                           : leaf(model.globals().lm_head);
  for (const model::TokenBatch& tokens : batches) {
    const auto batch = model::make_micro_batch(config, tokens);
    at::Tensor x = own.embed_tokens.index_select(0, tokens.ids);
    for (std::int64_t l = 0; l < config.num_layers(); ++l) {
      x = model::decoder_layer({config, l, batch}, *model.acquire(l, -1), x);
    }
    x = x * (x.square().mean(-1, true) + config.norm_eps).rsqrt() *
        own.final_norm;
    const at::Tensor loss = at::cross_entropy_loss(
        at::mm(x, own.lm_head.t()), tokens.targets, {}, at::Reduction::Sum);
    torch::autograd::backward({loss}, {});
  }
  return {own.embed_tokens.grad(), own.final_norm.grad(), own.lm_head.grad()};
}

at::Tensor whole(const GlobalGradients& gradients, std::size_t i) {
  return gradients.rows(
      i, {0, gradients.ids()[i].role == Role::kFinalNorm ? kHidden : kVocab});
}

}  // namespace

TEST_CASE("gradients outside the layers are autograd's") {
  const bool tied = GENERATE(false, true);
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), TinyModel{.tied = tied});
  const auto model = open_model(folder.path());
  auto shown = sequences(5, 12);
  shown[1].labels[3] = -100;
  shown[4].labels.assign(12, -100);
  const auto batches = sweep::micro_batches(shown, 24, kVocab);
  REQUIRE(batches.size() == 3);
  const model::GlobalWeights expected = gradients_by_autograd(*model, batches);

  std::vector<model::WeightId> ids{{Role::kFinalNorm}, {Role::kEmbedTokens}};
  if (!tied) ids.push_back({Role::kLmHead});
  GlobalGradients gradients(ids, model->config());
  CHECK(whole(gradients, 1).eq(0.0).all().item<bool>());
  Watch watch(gradients);
  run_backward(*model, batches, {&watch}, 0);
  CHECK(watch.heads == 1);
  CHECK(watch.embeddings == 1);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    INFO(model::role_name(ids[i].role));
    const at::Tensor meant = model::weight_view(expected, ids[i]);
    REQUIRE(meant.abs().max().item<double>() > 0.1);
    CHECK(at::allclose(whole(gradients, i), meant, 1e-4, 1e-5));
    CHECK(
        gradients.norm_squared(i) ==
        Approx(meant.square().sum().item<double>()).epsilon(1e-4));
  }
  // Tokens that no sequence has.
  if (!tied) {
    const at::Tensor unused = expected.embed_tokens.abs().sum(1).eq(0.0);
    CHECK(unused.any().item<bool>());
    CHECK(whole(gradients, 1).abs().sum(1).eq(0.0).equal(unused));
  }
  gradients.clear();
  CHECK(whole(gradients, 0).eq(0.0).all().item<bool>());
  CHECK(gradients.norm_squared(1) == 0.0);
}

TEST_CASE("a backward pass that ends above shows no embeddings") {
  const TemporaryFolder folder;
  write_tiny_model(folder.path());
  const auto model = open_model(folder.path());
  GlobalGradients gradients({{Role::kEmbedTokens}}, model->config());
  Watch watch(gradients);
  run_backward(
      *model, sweep::micro_batches(sequences(2, 12), 24, kVocab), {&watch}, 1);
  CHECK(watch.heads == 1);
  CHECK(watch.embeddings == 0);
  CHECK(gradients.norm_squared(0) == 0.0);
}

TEST_CASE("rows of a tied gradient are those of head and tokens together") {
  model::ModelConfig config;
  config.vocab_size = 5;
  config.hidden_size = 2;
  config.tie_word_embeddings = true;
  GlobalGradients gradients({{Role::kEmbedTokens}}, config);
  const at::Tensor normed = at::ones({1, 2});
  const at::Tensor d_logits = at::arange(5, at::kFloat).view({1, 5});
  gradients.on_head_gradient({normed, d_logits, at::zeros({2})});
  const auto embed = [&](std::vector<std::int64_t> ids, float value) {
    const auto count = static_cast<std::int64_t>(ids.size());
    gradients.on_embedding_gradient(
        at::tensor(ids, at::kLong), at::full({count, 2}, value));
  };
  embed({3, 1, 3}, 10.0F);
  embed({4, 1}, 100.0F);
  // Head 0 1 2 3 4, then 1: 10 + 100, 3: 10 + 10, 4: 100.
  CHECK(gradients.rows(0, {0, 2}).select(1, 0).equal(at::tensor({0.F, 111.F})));
  CHECK(gradients.rows(0, {2, 3}).select(1, 1).equal(
      at::tensor({2.F, 23.F, 104.F})));
}
