// SPDX-License-Identifier: Apache-2.0
#include "trim/repair_sweep.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "scores.h"
#include "sweep/micro_batches.h"
#include "sweep/plan.h"
#include "sweep/sweep.h"
#include "trim/slice.h"

namespace fettle::trim {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using fettle::testing::TemporaryFolder;
using fettle::testing::TinyModel;
using fettle::testing::TinyModelOptions;
using model::Role;

std::vector<model::TokenBatch> sample_tokens(std::int64_t batch = 64) {
  return sweep::micro_batches(
      fettle::testing::random_data(12, 16, 11), batch, 11);
}

artifact::TrimPlan plan_of(
    const model::ModelReader& reader, std::vector<std::int64_t> kept) {
  artifact::TrimPlan plan;
  plan.model_fingerprint = reader.fingerprint();
  for (const model::LayerConfig& layer : reader.config().layers) {
    artifact::LayerPlan made{{}, layer.sparse ? layer.top_k : 0};
    for (std::int64_t e = 0; e < layer.num_experts(); ++e) {
      made.experts.push_back({e, kept});
    }
    plan.layers.push_back(std::move(made));
  }
  return plan;
}

at::Tensor final_hidden_of(const std::filesystem::path& folder) {
  model::CausalLm model(folder, {});
  sweep::Sweep sweep(model, sample_tokens(), {});
  sweep.forward({}, {});
  return sweep.hidden(0);
}

struct Trimmed {
  TemporaryFolder folder;
  TrimResult result;
};

std::unique_ptr<Trimmed> trim(
    const TinyModel& tiny,
    const artifact::TrimPlan& plan,
    Repair repair,
    const RidgeOptions& options,
    std::int64_t micro_batch = 64) {
  auto trimmed = std::make_unique<Trimmed>();
  model::CausalLm model(tiny.path(), {});
  const RidgeInput input{model, sample_tokens(micro_batch), options};
  trimmed->result = trim_model(
      model.reader(),
      plan,
      {.repair = repair, .ridge = &input},
      trimmed->folder.path());
  return trimmed;
}

// Neuron 4 of every expert is twice neuron 1: its gate is the same, its up
// weights are twice as large.
TinyModelOptions with_redundant_neuron() {
  TinyModelOptions options;
  options.edit = [](const model::WeightId& id, at::Tensor tensor) {
    if (id.role == Role::kExpertGate) tensor[4] = tensor[1];
    if (id.role == Role::kExpertUp) tensor[4] = 2 * tensor[1];
    return tensor;
  };
  return options;
}

TEST_CASE("A repair refuses activations that overflow, naming the layer") {
  TinyModelOptions options;
  options.edit = [](const model::WeightId& id, at::Tensor tensor) {
    if (id.role == Role::kExpertUp && id.layer == 1) tensor.mul_(1e30);
    return tensor;
  };
  const TinyModel tiny(options);
  const model::ModelReader reader(tiny.path());
  const artifact::TrimPlan plan = plan_of(reader, {0, 1, 2});
  const Repair repair =
      GENERATE(Repair::kRidge, Repair::kRidgeConstant, Repair::kJoint);
  REQUIRE_THROWS_WITH(
      trim(tiny, plan, repair, {}),
      Contains("layer 1") && Contains("not finite"));
}

TEST_CASE("Ridge repair cuts a redundant neuron without loss") {
  TinyModelOptions options = with_redundant_neuron();
  options.constants = GENERATE(false, true);
  options.widths = GENERATE(
      std::vector<std::vector<std::int64_t>>{},
      std::vector<std::vector<std::int64_t>>{{6, 5, 5, 6}, {5, 6, 6, 7}});
  const Repair repair = GENERATE(Repair::kRidge, Repair::kRidgeConstant);
  const bool trimmed_inputs = GENERATE(false, true);
  const TinyModel tiny(options);
  const model::ModelReader reader(tiny.path());
  artifact::TrimPlan plan = plan_of(reader, {0, 1, 2, 3});
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    for (artifact::ExpertPlan& expert : plan.layers[l].experts) {
      const auto& widths = tiny.config().layers[l].expert_widths;
      for (std::int64_t k = 5; k < widths[expert.expert]; ++k) {
        expert.neurons.push_back(k);
      }
    }
  }
  const auto made = trim(
      tiny, plan, repair, {.lambda = 1e-7, .trimmed_inputs = trimmed_inputs});
  const at::Tensor before = final_hidden_of(tiny.path());
  const at::Tensor after = final_hidden_of(made->folder.path());
  // fp32 moments: their rounding, 1e-7, over lambda's share.
  REQUIRE(at::allclose(after, before, 1e-4, 1e-4));
  const model::ModelReader result(made->folder.path());
  REQUIRE(
      result.config().layers[0].has_constants ==
      (options.constants || repair == Repair::kRidgeConstant));
  // Plain slicing would not do.
  const TemporaryFolder sliced;
  trim_model(reader, plan, {}, sliced.path());
  REQUIRE(!at::allclose(final_hidden_of(sliced.path()), before, 1e-2, 1e-2));
  REQUIRE(made->result.repair->refitted == 8);
  REQUIRE(made->result.repair->error_left[1] < 1e-4);
}

// [n, I] activations and [n] mixing weights of each expert in a layer.
struct Seen : sweep::Observer {
  std::vector<std::vector<std::vector<at::Tensor>>> h, p;
  explicit Seen(std::int64_t layers, std::int64_t experts)
      : h(layers, std::vector<std::vector<at::Tensor>>(experts)), p(h) {}
  bool wants_experts() const override { return true; }
  void on_expert(std::int64_t l, const model::ExpertView& view) override {
    h[l][view.expert].push_back(view.h.to(at::kDouble));
    p[l][view.expert].push_back(view.weight.to(at::kDouble));
  }
};

TEST_CASE("Ridge weights are the least squares of what the experts saw") {
  TinyModelOptions options;
  options.type = GENERATE(at::kFloat, at::kBFloat16);
  options.family = GENERATE("qwen3_moe", "deepseek_v2");
  const TinyModel tiny(options);
  model::CausalLm model(tiny.path(), {});
  const std::vector<std::int64_t> kept{0, 2, 5};
  const artifact::TrimPlan plan = plan_of(model.reader(), kept);
  // Moments add up over micro-batches.
  const auto made =
      trim(tiny, plan, Repair::kRidge, {.lambda = 0.05}, GENERATE(16, 256));
  const model::ModelReader trimmed(made->folder.path());

  Seen seen(2, 4);
  sweep::Sweep sweep(model, sample_tokens(), {});
  sweep::Observer* const observers[] = {&seen};
  sweep.forward(observers, {});
  for (std::int64_t l = 0; l < 2; ++l) {
    if (!tiny.config().layers[l].sparse) continue;
    double energy = 0;
    std::vector<at::Tensor> weighted(4);
    for (std::int64_t e = 0; e < 4; ++e) {
      weighted[e] = at::cat(seen.h[l][e]) * at::cat(seen.p[l][e]).unsqueeze(1);
      energy += weighted[e].square().sum().item<double>();
    }
    const double lambda = 0.05 * energy / 24;
    for (std::int64_t e = 0; e < 4; ++e) {
      const model::WeightId id{Role::kExpertDown, l, e};
      const at::Tensor w = model.reader().read(id).to(at::kDouble);
      const at::Tensor index = at::tensor(kept, at::kLong);
      // The ridge as more rows of a plain least squares.
      const at::Tensor x = weighted[e].index_select(1, index);
      const at::Tensor rows =
          at::cat({x, std::sqrt(lambda) * at::eye(3, at::kDouble)});
      const at::Tensor held = std::sqrt(lambda) * w.index_select(1, index).t();
      const at::Tensor target = at::cat({at::mm(weighted[e], w.t()), held});
      const at::Tensor expected =
          std::get<0>(at::linalg_lstsq(rows, target)).t();
      const at::Tensor found = trimmed.read(id);
      REQUIRE(found.scalar_type() == options.type);
      // fp32 sums; then half a unit in the last place of the stored type.
      const double tolerance = options.type == at::kFloat ? 1e-4 : 4e-3;
      REQUIRE(at::allclose(found.to(at::kDouble), expected, tolerance, 1e-5));
    }
  }
}

TEST_CASE("Behind trimmed layers, repair fits what those give") {
  // Layer 0 loses its experts' outputs: only with its own inputs can layer 1
  // be fitted to what it will see.
  const TinyModel tiny;
  model::CausalLm model(tiny.path(), {});
  artifact::TrimPlan plan = plan_of(model.reader(), {0, 2, 5});
  for (auto& expert : plan.layers[0].experts) expert.neurons = {};
  const auto made = trim(
      tiny, plan, Repair::kRidge, {.lambda = 1e-3, .trimmed_inputs = true});

  // A model that is trimmed in layer 0 alone, and then in layer 1.
  artifact::TrimPlan first = plan, second = plan;
  first.layers[1] = plan_of(model.reader(), {0, 1, 2, 3, 4, 5}).layers[1];
  const TemporaryFolder half, whole;
  trim_model(model.reader(), first, {}, half.path());
  model::CausalLm half_model(half.path(), {});
  second.model_fingerprint = plan_of(half_model.reader(), {}).model_fingerprint;
  const RidgeInput input{half_model, sample_tokens(), {.lambda = 1e-3}};
  trim_model(
      half_model.reader(),
      second,
      {.repair = Repair::kRidge, .ridge = &input},
      whole.path());
  const model::ModelReader found(made->folder.path());
  const model::ModelReader expected(whole.path());
  for (std::int64_t e = 0; e < 4; ++e) {
    const model::WeightId id{Role::kExpertDown, 1, e};
    REQUIRE(at::allclose(found.read(id), expected.read(id), 1e-4, 1e-5));
  }
}

TEST_CASE("With experts gone, repair sees the tokens that come to the rest") {
  const TinyModel tiny(with_redundant_neuron());
  const model::ModelReader reader(tiny.path());
  artifact::TrimPlan plan = plan_of(reader, {0, 1, 2, 3, 5});
  artifact::TrimPlan whole = plan_of(reader, {0, 1, 2, 3, 4, 5});
  for (auto* p : {&plan, &whole}) {
    for (auto& layer : p->layers) {
      layer.experts.erase(layer.experts.begin() + 1);
    }
  }
  const TemporaryFolder fewer;
  trim_model(reader, whole, {}, fewer.path());
  const auto made = trim(
      tiny, plan, Repair::kRidge, {.lambda = 1e-7, .trimmed_inputs = true});
  REQUIRE(at::allclose(
      final_hidden_of(made->folder.path()),
      final_hidden_of(fewer.path()),
      1e-4,
      1e-4));
}

TEST_CASE("A joint fit is the least squares of the layer's output") {
  const TinyModel tiny;
  model::CausalLm model(tiny.path(), {});
  artifact::TrimPlan plan = plan_of(model.reader(), {0, 2, 5});
  plan.layers[0] = plan_of(model.reader(), {0, 1, 2, 3, 4, 5}).layers[0];
  // Expert 1 of the last layer is gone, with its row of the router.
  plan.layers[1].experts.erase(plan.layers[1].experts.begin() + 1);
  const auto made =
      trim(tiny, plan, Repair::kJoint, {.lambda = 0.01}, GENERATE(16, 256));
  const TemporaryFolder sliced;
  trim_model(model.reader(), plan, {}, sliced.path());
  model::CausalLm cut(sliced.path(), {});

  // Features of the cut layer, 0 where a token did not choose the expert.
  struct Features : sweep::Observer {
    at::Tensor values = at::zeros({12 * 16, 9}, at::kDouble);
    std::int64_t micro_batch = 0;
    bool wants_experts() const override { return true; }
    void on_expert(std::int64_t l, const model::ExpertView& view) override {
      if (l != 1) return;
      const at::Tensor f = view.h * view.weight.unsqueeze(1);
      values.narrow(1, 3 * view.expert, 3)
          .index_copy_(0, view.tokens, f.to(at::kDouble));
    }
  } features;
  sweep::Sweep before(model, sample_tokens(1024), {});
  before.forward({}, {});
  sweep::Sweep after(cut, sample_tokens(1024), {});
  sweep::Observer* const observers[] = {&features};
  after.forward(observers, {});
  const at::Tensor error = (before.hidden(0) - after.hidden(0)).to(at::kDouble);
  const at::Tensor& f = features.values;
  const at::Tensor gram = at::mm(f.t(), f);
  const double lambda = 0.01 * gram.diagonal().mean().item<double>();
  const at::Tensor change = at::linalg_solve(
      gram + lambda * at::eye(9, at::kDouble), at::mm(f.t(), error));
  const model::ModelReader found(made->folder.path());
  const model::ModelReader sliced_reader(sliced.path());
  for (std::int64_t e = 0; e < 3; ++e) {
    const model::WeightId id{Role::kExpertDown, 1, e};
    const at::Tensor expected =
        sliced_reader.read(id).to(at::kDouble) + change.narrow(0, 3 * e, 3).t();
    // fp32 sums, magnified by at most 1 / lambda.
    REQUIRE(at::allclose(found.read(id).to(at::kDouble), expected, 1e-4, 1e-4));
    const model::WeightId below{Role::kExpertDown, 0, e};
    REQUIRE(found.read(below).equal(model.reader().read(below)));
  }
  // What is left of the error is what the repaired model still has.
  model::CausalLm repaired(made->folder.path(), {});
  sweep::Sweep again(repaired, sample_tokens(1024), {});
  again.forward({}, {});
  const double left =
      (before.hidden(0) - again.hidden(0)).square().sum().item<double>() /
      error.square().sum().item<double>();
  REQUIRE(left < 0.9);
  REQUIRE(made->result.repair->error_left[1] == Approx(left).epsilon(1e-3));
  REQUIRE(made->result.repair->error_left[0] == 0);
  REQUIRE(made->result.repair->refitted == 3);
}

TEST_CASE("A joint fit makes up for layers below") {
  // Layer 0 is cut to the bone; layer 1 has all its neurons.
  const TinyModel tiny;
  model::CausalLm model(tiny.path(), {});
  artifact::TrimPlan plan = plan_of(model.reader(), {0, 1, 2, 3, 4, 5});
  for (auto& expert : plan.layers[0].experts) expert.neurons = {0};
  const auto made = trim(tiny, plan, Repair::kJoint, {.lambda = 1e-3});
  REQUIRE(made->result.repair->error_left[1] > 0);
  REQUIRE(made->result.repair->error_left[1] < 0.9);
}

TEST_CASE("Experts that no token chose are cut and counted") {
  TinyModelOptions options;
  // Expert 3's router row is opposed to expert 0's, and the others are between:
  // with all tokens one id, two experts are never chosen.
  const TinyModel tiny(options);
  model::CausalLm model(tiny.path(), {});
  std::vector<model::Sequence> data(1);
  data[0].ids.assign(6, 3);
  data[0].labels = data[0].ids;
  const auto batches = sweep::micro_batches(data, 64, 11);
  const artifact::TrimPlan plan = plan_of(model.reader(), {0, 2});
  const RidgeInput input{model, batches, {}};
  const TemporaryFolder out;
  const TrimResult result = trim_model(
      model.reader(),
      plan,
      {.repair = Repair::kRidge, .ridge = &input},
      out.path());
  // Top-2 of 4 experts in 2 layers; every token is the same.
  REQUIRE(result.repair->tokens == 6);
  REQUIRE(result.repair->unhit == 4);
  REQUIRE(result.repair->refitted == 4);
  REQUIRE(result.repair->scarce == 0);
  const model::ModelReader trimmed(out.path());
  int as_sliced = 0;
  for (std::int64_t e = 0; e < 4; ++e) {
    const model::WeightId id{Role::kExpertDown, 0, e};
    const at::Tensor sliced = model.reader().read(id).index_select(
        1, at::tensor(std::vector<std::int64_t>{0, 2}));
    as_sliced += trimmed.read(id).equal(sliced) ? 1 : 0;
  }
  REQUIRE(as_sliced == 2);
  const Json manifest = read_json(out.path() / "fettle.json", "test");
  REQUIRE(manifest["stages"][0]["measured"]["repair"]["unhit"] == 4);
  REQUIRE(manifest["stages"][0]["options"]["repair"] == "ridge");
}

TEST_CASE("Repair by sweep without data is refused") {
  const TinyModel tiny;
  model::CausalLm model(tiny.path(), {});
  const auto plan = plan_of(model.reader(), {0});
  const TemporaryFolder out;
  REQUIRE_THROWS_WITH(
      trim_model(model.reader(), plan, {.repair = Repair::kRidge}, out.path()),
      Contains("needs calibration data"));
  const RidgeInput empty{model, {}, {}};
  REQUIRE_THROWS_WITH(
      trim_model(
          model.reader(),
          plan,
          {.repair = Repair::kRidge, .ridge = &empty},
          out.path()),
      Contains("at least one token of calibration data"));
  REQUIRE(std::filesystem::is_empty(out.path()));
}

TEST_CASE("A repair's memory is that of its largest layer") {
  const TinyModel tiny;
  const model::ModelReader reader(tiny.path());
  artifact::TrimPlan plan = plan_of(reader, {0, 2, 5});
  const sweep::StageMemory both = repair_memory(reader, plan, {});
  // The covariances of the experts that lose neurons: 4 of 6, in fp32.
  REQUIRE(both.device_bytes == 4 * 6 * 6 * 4);
  REQUIRE(both.bytes > both.device_bytes);
  // Of all 12 kept neurons at once, with their rows of H outputs.
  const std::int64_t hidden = reader.config().hidden_size;
  REQUIRE(
      repair_memory(reader, plan, {.joint = true}).device_bytes ==
      4 * 12 * (12 + hidden) + 3 * 4 * hidden * 12);
  plan.layers[0] = plan_of(reader, {0, 1, 2, 3, 4, 5}).layers[0];
  REQUIRE(repair_memory(reader, plan, {}).bytes == both.bytes);
  plan.layers[1] = plan.layers[0];
  REQUIRE(repair_memory(reader, plan, {}).bytes == 0);
  REQUIRE(repair_memory(reader, plan, {}).device_bytes == 0);
}

TEST_CASE("A card too small for a repair's sums is refused by what would do") {
  const TinyModel tiny;
  const model::ModelReader reader(tiny.path());
  const sweep::StageMemory memory =
      repair_memory(reader, plan_of(reader, {0, 2, 5}), {});
  sweep::Workload workload{
      .tokens = 64, .longest_sequence = 16, .device = at::Device(at::kCUDA, 0)};
  const auto plain =
      sweep::plan_sweep(reader, workload, {.ram = 8LL << 30, .vram = 1 << 30});
  workload.add(memory);
  const auto with =
      sweep::plan_sweep(reader, workload, {.ram = 8LL << 30, .vram = 1 << 30});
  REQUIRE(with.vram_bytes() == plain.vram_bytes() + memory.device_bytes);
  REQUIRE_THROWS_WITH(
      sweep::plan_sweep(reader, workload, {.ram = 8LL << 30, .vram = 1}),
      Contains("--vram") && Contains("smallest"));
}

}  // namespace
}  // namespace fettle::trim
