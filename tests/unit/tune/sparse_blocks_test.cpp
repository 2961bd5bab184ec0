// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/sparse_blocks.h"

#include <catch2/catch.hpp>

#include "full_gradients.h"
#include "sweep/micro_batches.h"
#include "tiny_model.h"
#include "tune/method/sparse_method.h"
#include "tune/part/state_tensors.h"
#include "tune/sparse/block_delta.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using model::Role;

namespace {

at::Tensor numbers(std::vector<std::int64_t> values) {
  return at::tensor(values, at::kLong);
}

struct BlocksFixture {
  TemporaryFolder folder;
  std::unique_ptr<model::CausalLm> model;
  std::vector<model::TokenBatch> batches =
      sweep::micro_batches(sequences(5, 12), 24, kVocab);

  std::int64_t probes = 0;

  BlocksFixture() {
    write_tiny_model(folder.path());
    model = open_model(folder.path());
  }
  // 4 x 5 divides neither 16 nor the widths.
  SparseBlocks part(
      std::vector<Role> roles, const SparseOptions& sparse = {}) const {
    return {
        model->reader(),
        at::kCPU,
        {.name = "blocks",
         .roles = std::move(roles),
         .block = {4, 5},
         .score = BlockScore::kSignedSum,
         .sparse = sparse}};
  }
  // Each probe but the first sees other data.
  Probe probe() {
    return [this](sweep::Observer& observer, const ProbeRequest& request) {
      CHECK(request.at_once);
      const std::int64_t more = 3 * probes++;
      run_backward(
          *model,
          sweep::micro_batches(
              sequences(request.sequences + more, 12),
              request.by_sequence ? 12 : 24,
              kVocab),
          {&observer});
    };
  }
};

}  // namespace

TEST_CASE_METHOD(BlocksFixture, "chosen blocks' gradients are autograd's") {
  SparseBlocks part = this->part(model::kExpertRoles.all());
  // Layer 1 has experts of widths 6, 0, 4, 6: gate and up are [I, 16] in 2, 1
  // or 2 rows of 4 blocks; down is [16, I] in 4 rows of 2 or 1.
  const model::ModelConfig& config = model->config();
  const BlockLayout layout(config, 1, model::kExpertRoles.all(), {4, 5});
  CHECK(layout.count() == 2 * (8 + 4 + 8) + 8 + 4 + 8);
  const at::Tensor some = at::arange(0, layout.count(), 3, at::kLong);
  part.set_active(1, some);
  FullGradients full;
  run_backward(*model, batches, {&part, &full});
  model::LayerWeights gradients = model->reader().read_layer(1, at::kFloat);
  gradients.experts.gate_up = full.gate_up[1];
  gradients.experts.down = full.down[1];
  const auto split = layout.split(some);
  for (std::size_t m = 0; m < split.size(); ++m) {
    const BlockMatrix& matrix = layout.matrices()[m];
    const at::Tensor expected = gather_blocks(
        matrix.grid,
        packed_view(gradients, matrix.id).defined() &&
                matrix.id.role == Role::kExpertDown
            ? packed_view(gradients, matrix.id).t()
            : packed_view(gradients, matrix.id),
        split[m].ids);
    CHECK(at::allclose(
        part.gradient(1)[0].narrow(0, split[m].first, split[m].ids.size(0)),
        expected,
        1e-4,
        1e-6));
  }
  CHECK(part.gradient_norm_squared(1) > 0.0);
  CHECK_FALSE(part.trains(2));
}

TEST_CASE_METHOD(BlocksFixture, "what reaches over an edge is not counted") {
  SparseBlocks part = this->part({Role::kExpertGate});
  part.set_active(1, at::arange(20, at::kLong));
  CHECK(part.trainable_weights(kLayers) == (6 + 4 + 6) * kHidden);
}

TEST_CASE_METHOD(BlocksFixture, "blocks outside the experts are trained too") {
  SparseBlocks part =
      this->part({Role::kQProj}, {.schedule = {0.1, 0, 10, 0.0}});
  WeightGradients whole({{Role::kQProj, 1}});
  struct Watch : sweep::Observer {
    explicit Watch(WeightGradients& of) : gradients(of) {}
    void begin_layer(
        sweep::Pass pass,
        std::int64_t layer,
        model::LayerWeights& weights) override {
      if (layer == 1) gradients.begin_layer(pass, weights);
    }
    void end_layer(
        sweep::Pass pass, std::int64_t layer, model::LayerWeights&) override {
      if (layer == 1) gradients.end_layer(pass);
    }
    WeightGradients& gradients;
  } watch(whole);
  const at::Tensor some = numbers({0, 3, 6});
  part.set_active(1, some);
  run_backward(*model, batches, {&watch, &part});
  const BlockLayout layout(model->config(), 1, {Role::kQProj}, {4, 5});
  CHECK(at::allclose(
      part.gradient(1)[0],
      gather_blocks(layout.matrices()[0].grid, whole[0], some),
      1e-4,
      1e-6));

  const model::LayerWeights before = model->reader().read_layer(1, at::kFloat);
  model::LayerWeights after = model->reader().read_layer(1, at::kFloat);
  part.update(1, {0, 1.0});
  part.patch(1, after);
  CHECK_FALSE(after.attention.q_proj.equal(before.attention.q_proj));
  // The adapter gives the same numbers, into a layer and into a tensor.
  artifact::TensorMap saved;
  part.save_adapter(saved);
  REQUIRE(saved.size() == 2);
  const BlockDelta delta(saved, "blocks", model->config());
  model::LayerWeights merged = model->reader().read_layer(1, at::kFloat);
  delta.patch(1, merged);
  CHECK(merged.attention.q_proj.equal(after.attention.q_proj));
  CHECK(delta.changes({Role::kQProj, 1}));
  CHECK_FALSE(delta.changes({Role::kQProj, 2}));
  CHECK(delta.merge({Role::kQProj, 1}, before.attention.q_proj)
            .equal(after.attention.q_proj));
}

TEST_CASE_METHOD(BlocksFixture, "the choice is by the mean of signed sums") {
  const Probe probe = this->probe();
  SilentReporter reporter;
  for (const Scope scope : {Scope::kGlobal, Scope::kLayer}) {
    probes = 0;
    SparseBlocks part = this->part(
        model::kExpertRoles.all(),
        {.frac = 0.1, .scope = scope, .score_sequences = 5});
    part.prepare({0, probe, probe, reporter});
    FullGradients full;
    run_backward(*model, batches, {&full});
    UnitScores scores(3);
    for (const std::int64_t l : {1, 2}) {
      model::LayerWeights gradients = model->reader().read_layer(l, at::kFloat);
      gradients.experts.gate_up = full.gate_up[l].abs();
      gradients.experts.down = full.down[l].abs();
      const BlockLayout layout(
          model->config(), l, model::kExpertRoles.all(), {4, 5});
      for (const BlockMatrix& m : layout.matrices()) {
        const at::Tensor view = packed_view(gradients, m.id);
        const at::Tensor sums = block_sums(
            m.grid, m.id.role == Role::kExpertDown ? view.t() : view);
        for (std::int64_t i = 0; i < sums.size(0); ++i) {
          scores[l].push_back(sums[i].item<double>());
        }
      }
    }
    const UnitSets expected = choose_units(scores, 0.1, scope);
    for (const std::int64_t l : {1, 2}) {
      CHECK(part.active(l).equal(numbers(expected[l])));
    }
  }
}

TEST_CASE_METHOD(BlocksFixture, "single weights are kept in 12 bytes each") {
  SparseBlocks part(
      model->reader(),
      at::kCPU,
      {.name = "blocks",
       .roles = model::kExpertRoles.all(),
       .block = {1, 1},
       .score = BlockScore::kSquares,
       .sparse = {
           .frac = 0.2,
           .scope = Scope::kLayer,
           .score_sequences = 3,
           .rest_below = GENERATE(0.0, 0.5),
           .schedule = {0.1, 0, 10, 0.0}}});
  SilentReporter reporter;
  const Probe probe = this->probe();
  part.prepare({0, probe, probe, reporter});
  run_backward(*model, batches, {&part});
  for (const std::int64_t l : {0, 1, 2}) part.update(l, {0, 1.0});
  for (const std::int64_t l : {1, 2}) {
    const at::Tensor index = part.active(l);
    const std::int64_t weights = part.trained_weights(l);
    REQUIRE(weights == index.size(0));
    CHECK(weights > 100);
    // Numbers, none that are frozen, and an age: of all, or of each matrix.
    const BlockLayout layout(
        model->config(), l, model::kExpertRoles.all(), {1, 1});
    const auto matrices = static_cast<std::int64_t>(layout.matrices().size());
    const std::int64_t numbers =
        CompactIndex(index).bytes() + CompactIndex().bytes();
    const std::int64_t ages = part.state_bytes(l) - 12 * weights - numbers;
    CHECK((ages == 4 || ages == 4 * matrices));
    CHECK(numbers < weights + 32);
    // A state and an adapter hold no more.
    artifact::TensorMap state, adapter;
    part.save_state(state);
    part.save_adapter(adapter);
    std::int64_t saved = 0;
    for (const auto& [name, tensor] : state) {
      if (name.find(layer_key("blocks", l, "")) == 0) saved += tensor.nbytes();
    }
    CHECK(saved == part.state_bytes(l));
    saved = 0;
    for (const auto& [name, tensor] : adapter) {
      if (name.find(layer_key("blocks", l, "")) == 0) saved += tensor.nbytes();
    }
    CHECK(saved < 5 * weights + 18 * matrices);
  }
}

TEST_CASE_METHOD(
    BlocksFixture, "the best of a layer are those that rank first") {
  // All scores, and of each layer the numbers of the best alone.
  std::vector<BlockLayout> layouts;
  for (const std::int64_t l : {0, 1, 2}) {
    layouts.emplace_back(
        model->config(), l, model::kExpertRoles.all(), BlockShape{1, 1});
  }
  BlockScorer all(layouts, BlockScore::kSquares);
  BlockScorer best(layouts, BlockScore::kSquares, 0.1);
  run_backward(*model, batches, {&all, &best});
  const UnitSets expected = choose_units(all.scores(), 0.1, Scope::kLayer);
  for (const std::size_t l : {1, 2}) {
    REQUIRE(expected[l].size() > 50);
    CHECK(best.best()[l].decode().equal(numbers(expected[l])));
  }
}

TEST_CASE_METHOD(BlocksFixture, "the state of blocks comes back bit for bit") {
  const SparseOptions sparse{
      .frac = 0.1,
      .score_sequences = 3,
      .reselect_every = 2,
      .drop_fraction = 0.9,
      .schedule = {0.1, 0, 10, 0.0}};
  SparseBlocks part = this->part(model::kExpertRoles.all(), sparse);
  SparseBlocks other = this->part(model::kExpertRoles.all(), sparse);
  SilentReporter reporter;
  const Probe probe = this->probe();
  const auto step = [&](SparseBlocks& which, std::int64_t s) {
    which.prepare({s, probe, probe, reporter});
    run_backward(*model, batches, {&which});
    for (const std::int64_t l : {0, 1, 2}) which.update(l, {s, 0.5});
  };
  for (const std::int64_t s : {0, 1, 2}) step(part, s);
  artifact::TensorMap saved;
  part.save_state(saved);
  for (auto& [name, tensor] : saved) tensor = tensor.clone();
  other.load_state(saved);
  CHECK(other.frozen(1).size() + other.frozen(2).size() > 0);
  step(part, 3);
  step(other, 3);
  artifact::TensorMap a, b;
  part.save_state(a);
  other.save_state(b);
  for (const auto& [name, tensor] : a) CHECK(tensor.equal(b.at(name)));
}
