// SPDX-License-Identifier: Apache-2.0
#include "trim/kept_blocks.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "core/error.h"
#include "io/checkpoint_writer.h"
#include "scores.h"
#include "trim/slice.h"

namespace fettle::trim {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using fettle::testing::TemporaryFolder;
using fettle::testing::TinyModel;
using model::Role;

// The sample's experts, [6, 8] and [8, 6], as random codes and scales.
class Fp8Model {
 public:
  explicit Fp8Model(const Json& block) {
    const auto file = base_.path() / "model.safetensors";
    auto tensors = artifact::load_tensors(file).tensors;
    std::filesystem::remove(file);
    std::vector<io::TensorSpec> specs;
    std::map<std::string, at::Tensor> bytes;
    for (const model::WeightId& id : model::model_weights(base_.config())) {
      const std::string name = model::weight_name(base_.config(), id);
      const at::Tensor values = tensors.at(name).contiguous();
      if (!model::is_expert_role(id.role)) {
        specs.push_back({name, io::DType::kF32, values.sizes().vec()});
        bytes[name] = values.view(at::kByte).clone();
        continue;
      }
      const model::BlockGrid grid{block[0], block[1]};
      specs.push_back({name, io::DType::kF8E4M3, values.sizes().vec()});
      bytes[name] = values.to(at::kFloat8_e4m3fn).view(at::kByte);
      const auto sides = grid.grid(values.sizes().vec());
      specs.push_back({name + "_scale_inv", io::DType::kF32, sides});
      bytes[name + "_scale_inv"] =
          at::rand(sides, at::kFloat).view(at::kByte).clone();
    }
    io::CheckpointWriter writer(base_.path(), specs);
    for (const io::TensorSpec& spec : specs) {
      const at::Tensor all = bytes[spec.name].contiguous();
      writer.write(spec.name, artifact::tensor_bytes(all));
    }
    writer.finish();
    set_method({{"quant_method", "fp8"}, {"weight_block_size", block}});
  }

  void set_method(const Json& quantization) {
    Json json = model::config_json(base_.config());
    json["quantization_config"] = quantization;
    std::ofstream(base_.path() / "config.json") << json.dump();
  }

  const std::filesystem::path& path() const { return base_.path(); }

 private:
  TinyModel base_;
};

const std::vector<std::int64_t> kAll{0, 1, 2, 3, 4, 5};

artifact::TrimPlan kept_plan(
    const model::ModelReader& reader, std::vector<std::int64_t> neurons) {
  artifact::TrimPlan plan;
  plan.model_fingerprint = reader.fingerprint();
  plan.layers = {
      {{{0, std::move(neurons)}, {1, kAll}, {2, {}}, {3, {4, 5}}}, 2},
      {{{1, kAll}, {3, kAll}}, 2}};
  return plan;
}

// A tensor's bytes by rows, or of the scales of a matrix.
at::Tensor stored(const model::ModelReader& reader, const std::string& name) {
  const io::TensorInfo& info = reader.checkpoint().require(name);
  return model::read_span(reader.checkpoint(), {&info, 0, info.bytes()})
      .view({info.shape[0], -1});
}

// Blocks of the kept neurons, 2 wide, along rows or columns.
at::Tensor block_index(const std::vector<std::int64_t>& blocks) {
  return at::tensor(blocks, at::kLong);
}

TEST_CASE("Kept codes and scales are the source's bytes") {
  const Fp8Model source({2, 2});
  const model::ModelReader reader(source.path());
  REQUIRE(kept_unit(reader) == 2);
  const auto plan = kept_plan(reader, {0, 1, 4, 5});
  const TemporaryFolder out;
  TrimRunOptions options;
  options.stored = Stored::kKeep;
  const TrimResult result = trim_model(reader, plan, options, out.path());
  const model::ModelReader trimmed(out.path());
  const auto widths = trimmed.config().layers[0].expert_widths;
  REQUIRE(widths == std::vector<std::int64_t>{4, 6, 0, 2});
  const auto name = [&](Role role, std::int64_t layer, std::int64_t expert) {
    return model::weight_name(reader.config(), {role, layer, expert});
  };
  for (const Role role : {Role::kExpertGate, Role::kExpertUp}) {
    const std::string scales = name(role, 0, 0) + "_scale_inv";
    CHECK(stored(trimmed, name(role, 0, 0))
              .equal(stored(reader, name(role, 0, 0))
                         .index_select(0, block_index({0, 1, 4, 5}))));
    CHECK(stored(trimmed, scales)
              .equal(
                  stored(reader, scales).index_select(0, block_index({0, 2}))));
  }
  const std::string down = name(Role::kExpertDown, 0, 0);
  CHECK(
      stored(trimmed, down)
          .equal(
              stored(reader, down).index_select(1, block_index({0, 1, 4, 5}))));
  // Scales of four bytes, by columns.
  CHECK(stored(trimmed, down + "_scale_inv")
            .view({4, 2, 4})
            .equal(stored(reader, down + "_scale_inv")
                       .view({4, 3, 4})
                       .index_select(1, block_index({0, 2}))));
  // Expert 3 of layer 1 became 1.
  CHECK(stored(trimmed, name(Role::kExpertUp, 1, 1))
            .equal(stored(reader, name(Role::kExpertUp, 1, 3))));
  const Json config = read_json(out.path() / "config.json", "test");
  CHECK(config["quantization_config"]["quant_method"] == "fp8");
  std::int64_t bytes = 0;
  for (const auto& id : model::model_weights(trimmed.config())) {
    bytes += trimmed.stored_bytes(id);
  }
  CHECK(result.after.bytes == bytes);
  CHECK(
      result.after.bytes ==
      trimmed_size(reader, plan, Repair::kNone, Stored::kKeep).after.bytes);
}

TEST_CASE("What is kept computes what its values written plain compute") {
  const Fp8Model source({2, 2});
  const model::ModelReader reader(source.path());
  const auto plan = kept_plan(reader, {0, 1, 4, 5});
  const TemporaryFolder kept, plain;
  TrimRunOptions options;
  trim_model(reader, plan, options, plain.path());
  options.stored = Stored::kKeep;
  trim_model(reader, plan, options, kept.path());
  const model::ModelReader a(kept.path()), b(plain.path());
  for (const auto& id : model::model_weights(a.config())) {
    CHECK(a.read(id).equal(b.read(id)));
  }
  CHECK_FALSE(b.has_coded());
  CHECK_FALSE(read_json(plain.path() / "config.json", "test")
                  .contains("quantization_config"));
}

TEST_CASE("A short block at an expert's end can stay, and only whole") {
  const Fp8Model source({4, 4});
  const model::ModelReader reader(source.path());
  CHECK(kept_unit(reader) == 4);
  const auto why = [&](const std::vector<std::int64_t>& neurons) {
    return why_not_kept(reader, kept_plan(reader, neurons), {});
  };
  CHECK(why({4, 5}).empty());
  CHECK(why({0, 1, 2, 3}).empty());
  CHECK(why(kAll).empty());
  CHECK(why({}).empty());
  const std::string text =
      "expert 0 of layer 0 keeps 4 of 6 neurons, which are no whole blocks of "
      "4";
  CHECK_THAT(why({0, 1, 2, 4}), Contains(text));
  CHECK_THAT(why({2, 3, 4, 5}), Contains(text));
  CHECK_THAT(why({0, 1, 2}), Contains("keeps 3 of 6"));
  CHECK_THAT(why({0, 1, 2, 3, 4}), Contains("keeps 5 of 6"));
}

TEST_CASE("What codes can't hold is refused before anything is written") {
  const Fp8Model source({2, 2});
  const model::ModelReader reader(source.path());
  const TemporaryFolder out;
  TrimRunOptions options;
  options.stored = Stored::kKeep;
  CHECK_THROWS_WITH(
      trim_model(reader, kept_plan(reader, {0, 2}), options, out.path()),
      Contains("no whole blocks of 2") && Contains("or --stored bf16"));
  options.repair = Repair::kRidge;
  CHECK_THROWS_WITH(
      trim_model(reader, kept_plan(reader, kAll), options, out.path()),
      Contains("make new values") && Contains("--repair none"));
  CHECK(std::filesystem::is_empty(out.path()));
}

TEST_CASE("Codes of NaN are refused where they would be copied") {
  const Fp8Model source({2, 2});
  const model::ModelReader reader(source.path());
  const std::string name =
      model::weight_name(reader.config(), {Role::kExpertUp, 0, 1});
  const io::TensorInfo& info = reader.checkpoint().require(name);
  std::fstream file(
      source.path() / "model.safetensors",
      std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(info.begin + 5));
  file.put(static_cast<char>(0xff));
  file.close();
  CHECK_THROWS_WITH(
      kept_bytes(reader, {Role::kExpertUp, 0, 1}, nullptr),
      Contains(name) && Contains("found NaN"));
}

TEST_CASE("Codes that Fettle writes no part of are named") {
  Fp8Model source({8, 8});
  source.set_method({{"quant_method", "fp8"}});
  const model::ModelReader reader(source.path());
  CHECK_THAT(
      why_not_kept(reader, {}),
      Contains("experts.0.gate_proj.weight is fp8 in blocks of 6 x 8, of which "
               "Fettle writes no part"));
  CHECK(kept_unit(reader) == 1);
}

TEST_CASE("Plans of blocks rank neighbours by their mean") {
  fettle::testing::TinyModelOptions tiny;
  tiny.changes = {{"num_experts", 2}, {"moe_intermediate_size", 5}};
  const model::ModelConfig config = fettle::testing::tiny_config(tiny);
  // Blocks of layer 0 are worth 5 and 6, 4 and 1; of layer 1 all 2.
  const auto scores = neuron_scores(
      config,
      {{9, 1, 6, 6, 99, /**/ 8, 0, 1, 1, 99}, {2, 2, 2, 2, 2, 2, 2, 2, 2, 2}});
  TrimOptions options;
  options.block = 2;
  options.round = 2;
  const auto neurons = [&](double keep) {
    options.keep = keep;
    std::vector<std::vector<std::int64_t>> kept;
    const auto plan = plan_trim(scores, config, options);
    for (const auto& expert : plan.layers[0].experts) {
      kept.push_back(expert.neurons);
    }
    return kept;
  };
  using NeuronLists = std::vector<std::vector<std::int64_t>>;
  CHECK(neurons(0.1) == NeuronLists{{2, 3}, {}});
  CHECK(neurons(0.2) == NeuronLists{{0, 1, 2, 3}, {}});
  // The odd neuron at the end ranks with the least block.
  CHECK(neurons(0.25) == NeuronLists{{0, 1, 2, 3, 4}, {}});
  CHECK(neurons(0.35) == NeuronLists{{0, 1, 2, 3, 4}, {0, 1}});
  options.keep = 0.5;
  options.round = 3;
  CHECK_THROWS_WITH(
      plan_trim(scores, config, options),
      Contains("expected a multiple of 2, since neurons go in blocks"));
}

TEST_CASE("A budget counts what kept blocks take") {
  const Fp8Model source({2, 2});
  const model::ModelReader reader(source.path());
  const auto whole = model_bytes(reader, {.stored = Stored::kKeep});
  const auto plain = model_bytes(reader, {});
  // Codes of 24 weights, and scales of 4 x 4 bytes for gate and up, and of 4
  // for down, for two neurons.
  CHECK(whole.per_neuron == 24 + (4 + 4 + 4) * 4 / 2);
  CHECK(plain.per_neuron == 24 * 2);
  CHECK(whole.fixed == plain.fixed);
}

}  // namespace
}  // namespace fettle::trim
