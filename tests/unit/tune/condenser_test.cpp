// SPDX-License-Identifier: Apache-2.0
#include "tune/condenser/condenser.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "io/file.h"
#include "tiny_model.h"
#include "tune/adapter/adapter.h"
#include "tune/adapter/merge_adapter.h"
#include "tune/condenser/condenser_delta.h"
#include "tune/tune.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

using Experts = std::vector<std::int64_t>;
using Rows = std::vector<std::vector<float>>;

const Probe kUnused = [](sweep::Observer&, const ProbeRequest&) {
  FAIL("a probe");
};

// Two sparse layers, 1 and 2, of widths 6, 0, 4, 6 and 5, 3, 6, 2; top-2.
struct CondenserFixture {
  TemporaryFolder folder;
  fs::path base = folder.path() / "base";
  SilentReporter reporter;

  CondenserFixture() { write_tiny_model(base); }

  Condenser part(const CondenserOptions& options) {
    return {model::ModelReader(base), at::kCPU, options};
  }
  void prepare(Condenser& part, std::int64_t step, const Probe& probe) {
    part.prepare({step, probe, kUnused, reporter});
  }
};

// A forward pass over tokens with these probabilities, each a micro-batch.
void show(sweep::Observer& part, std::int64_t layer, const Rows& rows) {
  model::LayerWeights weights;
  part.begin_layer(sweep::Pass::kForward, layer, weights);
  const at::Tensor none;
  for (const auto& row : rows) {
    const at::Tensor probs = at::tensor(row).unsqueeze(0);
    part.on_routing(layer, {none, none, probs, none, none});
  }
}

model::LayerWeights patched(const Condenser& part, std::int64_t layer) {
  model::LayerWeights weights;
  part.patch(layer, weights);
  return weights;
}

bool has_bias(
    const Condenser& part, std::int64_t layer, std::vector<float> bias) {
  return patched(part, layer).router_bias.equal(at::tensor(bias));
}

}  // namespace

TEST_CASE_METHOD(CondenserFixture, "biases go up for more than the mean") {
  Condenser part =
      this->part({.count = 1, .after = 2, .rate = 0.5, .condensed_rate = 0.25});
  CHECK(part.trainable_weights(kLayers) == 8);
  CHECK_FALSE(part.trains(1));
  CHECK(has_bias(part, 1, {0, 0, 0, 0}));
  CHECK_FALSE(patched(part, 0).router_bias.defined());

  prepare(part, 0, kUnused);
  // Sums .875, .5, .375, .25 and .125, .125, .25, .5.
  show(part, 1, {{0.5, 0.25, 0.125, 0.125}, {0.375, 0.25, 0.25, 0.125}});
  show(part, 2, {{0.125, 0.125, 0.25, 0.5}});
  for (const std::int64_t l : {0, 1, 2}) part.update(l, {0, 1.0});
  CHECK(has_bias(part, 1, {0.5, 0, -0.5, -0.5}));
  CHECK(has_bias(part, 2, {-0.5, -0.5, 0, 0.5}));
  CHECK(part.gradient_norm_squared(1) == 0.0);
  CHECK(part.learning_rate(0) == 0.5);

  prepare(part, 1, kUnused);
  CHECK(patched(part, 1).condensers.empty());
  show(part, 1, {{0.25, 0.5, 0.25, 1.0}});
  show(part, 2, {{0.1875, 0.0625, 0.25, 0.5}});
  for (const std::int64_t l : {0, 1, 2}) part.update(l, {1, 1.0});
  CHECK(has_bias(part, 1, {0, 0, -1, 0}));
  CHECK(has_bias(part, 2, {-1, -1, 0, 1}));

  // Of two equally low, the one that had less over both steps.
  prepare(part, 2, kUnused);
  CHECK(patched(part, 1).condensers == Experts{2});
  CHECK(patched(part, 2).condensers == Experts{1});
  show(part, 1, {{1, 0, 0, 0}});
  part.update(1, {2, 1.0});
  CHECK(has_bias(part, 1, {0.25, -0.25, -1.25, -0.25}));
  CHECK(part.learning_rate(2) == 0.25);
  // The choice stands.
  prepare(part, 3, kUnused);
  CHECK(patched(part, 1).condensers == Experts{2});
}

TEST_CASE_METHOD(CondenserFixture, "a layer not seen keeps its bias") {
  Condenser part = this->part({.count = 1, .after = 9});
  model::LayerWeights weights;
  part.begin_layer(sweep::Pass::kBackward, 1, weights);
  part.update(1, {0, 1.0});
  CHECK(has_bias(part, 1, {0, 0, 0, 0}));
}

TEST_CASE_METHOD(
    CondenserFixture, "before any step the data shows who is starved") {
  Condenser part = this->part({.count = 1, .after = 0, .score_sequences = 7});
  const Probe probe = [](sweep::Observer& seen, const ProbeRequest& request) {
    CHECK(request.sequences == 7);
    // Two sweeps. The least used has no neurons; then 0 and 2 are equal.
    for (const int sweep : {0, 1}) {
      show(seen, 1, {{0.25, 0.0, 0.25, 0.5}});
      show(seen, 2, {{0.5f + sweep, 0.5, 0.25, 0.375}});
    }
  };
  prepare(part, 0, probe);
  CHECK(patched(part, 1).condensers == Experts{0});
  CHECK(patched(part, 2).condensers == Experts{2});
  CHECK(has_bias(part, 1, {0, 0, 0, 0}));
}

TEST_CASE_METHOD(CondenserFixture, "a condenser's state comes back") {
  const CondenserOptions options{.count = 1, .after = 2};
  Condenser a = part(options);
  Condenser b = part(options);
  for (const std::int64_t step : {0, 1, 2}) {
    prepare(a, step, kUnused);
    show(a, 1, {{0.1f, 0.3f, 0.2f + 0.1f * step, 0.1f}});
    show(a, 2, {{0.3f, 0.1f, 0.5f, 0.7f}});
    for (const std::int64_t l : {1, 2}) a.update(l, {step, 1.0});
    artifact::TensorMap saved, again;
    a.save_state(saved);
    REQUIRE(saved.size() == 6);
    b.load_state(saved);
    b.save_state(again);
    for (const auto& [name, tensor] : saved) {
      INFO(name);
      CHECK(tensor.equal(again.at(name)));
    }
  }
  CHECK(patched(b, 1).condensers.size() == 1);
  CHECK(b.learning_rate(3) == options.condensed_rate);

  artifact::TensorMap broken;
  a.save_state(broken);
  broken["condenser.layers.1.mass"] = at::zeros({3}, at::kDouble);
  CHECK_THROWS_WITH(b.load_state(broken), Contains("layers.1.mass"));
}

TEST_CASE_METHOD(CondenserFixture, "a router keeps something to choose") {
  CHECK_THROWS_AS(part({.count = 2}), UserError);
  CHECK_THROWS_WITH(
      part({.count = 2}),
      Contains("fewer than the 2 experts of a token in layer 1, "));
}

TEST_CASE_METHOD(CondenserFixture, "an adapter with too many is refused") {
  const model::ModelReader reader(base);
  artifact::TensorMap tensors;
  for (const std::int64_t l : {1, 2}) {
    save_router_change({at::zeros({4}), {0, 1}}, l, tensors);
  }
  CHECK_NOTHROW(CondenserDelta(tensors, reader.config()));
  save_router_change({at::zeros({4}), {0, 1, 3}}, 2, tensors);
  CHECK_THROWS_WITH(
      CondenserDelta(tensors, reader.config()),
      Contains("layers.2.experts") && Contains("at most the 2 experts"));
  tensors.erase("condenser.layers.1.bias");
  CHECK_THROWS_WITH(
      CondenserDelta(tensors, reader.config()), Contains("layers.1.bias"));
}

namespace {

struct TunedFixture : CondenserFixture {
  fs::path first = folder.path() / "first";
  fs::path merged = folder.path() / "merged";
  TuneOptions options;

  TunedFixture() {
    options.method = "condenser";
    options.steps = 6;
    options.tokens_per_step = 64;
    options.seq_len = 16;
    options.score_sequences = 4;
    options.condensers = 1;
    options.bias_rate = 0.25;
    options.condenser_bias_rate = 0.125;
  }
  void tune(const fs::path& from, const fs::path& to) {
    const auto model = open_model(from);
    text::Mixture train = mixture(16, 1);
    tune::tune(
        {.model = *model,
         .train = train,
         .held_out = {},
         .out = to,
         .micro_batch_tokens = 32,
         .sweep = {}},
        options,
        reporter);
  }
  MergeReport merge(
      const fs::path& from, const fs::path& adapter, const fs::path& to) {
    const model::ModelReader reader(from);
    return merge_adapter(reader, adapter, {.dtype = "float32"}, to, reporter);
  }
};

}  // namespace

TEST_CASE_METHOD(
    TunedFixture, "a model merged with condensers is the tuned one") {
  options.method = GENERATE("condenser", "usaf+condenser");
  tune(base, first);
  const MergeReport report = merge(base, first, merged);
  CHECK(report.roles.at("router_bias").kept_share() == 1.0);
  CHECK(report.roles.at("router_bias").delta > 0.0);

  const auto model = open_model(base);
  const at::Tensor before = logits_of(*model);
  const Adapter adapter = Adapter::load(first, model->reader());
  model->set_patch([&](std::int64_t layer, model::LayerWeights& weights) {
    adapter.patch(layer, weights);
  });
  const at::Tensor expected = logits_of(*model);
  const auto after = open_model(merged);
  CHECK(logits_of(*after).equal(expected));
  CHECK_FALSE(before.equal(expected));
  for (const std::int64_t l : {1, 2}) {
    CHECK(after->config().layers[l].condensers.size() == 1);
    const at::Tensor bias = after->reader().read({model::Role::kRouterBias, l});
    // Three steps of .25 and three of .125.
    CHECK(bias.abs().max().item<float>() <= 1.125f);
    CHECK(bias.count_nonzero().item<int>() > 0);
  }
  CHECK_FALSE(after->config().layers[0].router_bias);
}

TEST_CASE_METHOD(TunedFixture, "a model with condensers keeps them") {
  tune(base, first);
  merge(base, first, merged);
  options.condenser_after = 5;
  options.condensers = 2;  // would be refused for a choice
  const fs::path second = folder.path() / "second";
  tune(merged, second);
  const auto before = artifact::load_tensors(first / "adapter.safetensors");
  const auto after = artifact::load_tensors(second / "adapter.safetensors");
  for (const std::string layer : {"1", "2"}) {
    const std::string key = "condenser.layers." + layer;
    CHECK(after.tensors.at(key + ".experts")
              .equal(before.tensors.at(key + ".experts")));
    // At the rate of the second phase from the first step on.
    const at::Tensor moved =
        after.tensors.at(key + ".bias") - before.tensors.at(key + ".bias");
    CHECK(moved.abs().max().item<float>() <= 6 * 0.125f);
    CHECK(moved.count_nonzero().item<int>() > 0);
  }
  const fs::path twice = folder.path() / "twice";
  merge(merged, second, twice);
  const model::ModelReader again(twice);
  CHECK(
      again.config().layers[1].condensers ==
      model::ModelReader(merged).config().layers[1].condensers);
  CHECK(again.read({model::Role::kRouterBias, 1})
            .equal(after.tensors.at("condenser.layers.1.bias")));
}
