// SPDX-License-Identifier: Apache-2.0
// What a trim keeps of tensors that it does not read: parts of a larger model,
// and heads that predict further tokens.
#include <algorithm>
#include <catch2/catch.hpp>

#include "artifact/carried_copy.h"
#include "core/error.h"
#include "core/progress.h"
#include "io/checkpoint.h"
#include "scores.h"
#include "trim/slice.h"

namespace fettle::trim {
namespace {

using namespace testing;
using artifact::Mtp;
using Catch::Matchers::Contains;
using fettle::testing::TemporaryFolder;
using fettle::testing::TinyModel;

const std::string kHead = "model.layers.2.";

struct HeadOptions {
  std::int64_t experts = 4;
  std::int64_t width = 6;
  std::int64_t first_width = 6;  // of the first expert
  std::int64_t shared = 12;
  bool stacked = false;
  at::ScalarType type = at::kBFloat16;
};

// Larger for later experts and neurons: the last ones are kept.
at::Tensor rising(std::int64_t expert, std::int64_t rows, std::int64_t cols) {
  return (at::arange(rows, at::kFloat) + 1 + 10 * expert)
      .unsqueeze(1)
      .expand({rows, cols})
      .contiguous();
}

void add_head(artifact::TensorMap& tensors, const HeadOptions& options) {
  const auto put = [&](const std::string& name, const at::Tensor& value) {
    tensors[kHead + name] = value.to(options.type).contiguous();
  };
  put("eh_proj.weight", at::ones({8, 16}));
  put("enorm.weight", at::ones({8}));
  put("mlp.gate.weight", at::arange(options.experts * 8).view({-1, 8}));
  put("mlp.shared_experts.down_proj.weight", at::ones({8, options.shared}));
  std::vector<at::Tensor> gate_up, down;
  for (std::int64_t e = 0; e < options.experts; ++e) {
    const at::Tensor rows =
        rising(e, e == 0 ? options.first_width : options.width, 8);
    gate_up.push_back(at::cat({rows, rows + 0.5}));
    down.push_back(rows.t().contiguous());
    if (options.stacked) continue;
    const std::string expert = "mlp.experts." + std::to_string(e) + ".";
    put(expert + "gate_proj.weight", rows);
    put(expert + "up_proj.weight", rows + 0.5);
    put(expert + "down_proj.weight", down.back());
  }
  if (!options.stacked) return;
  put("mlp.experts.gate_up_proj", at::stack(gate_up));
  put("mlp.experts.down_proj", at::stack(down));
}

// A model with a head that predicts the token after the next.
class ModelWithHead : public TinyModel {
 public:
  explicit ModelWithHead(const HeadOptions& options = {})
      : TinyModel(
            {.family = "deepseek_v2",
             .changes = {{"num_nextn_predict_layers", 1}}}) {
    const auto file = path() / "model.safetensors";
    artifact::TensorFile tensors = artifact::load_tensors(file);
    add_head(tensors.tensors, options);
    artifact::save_tensors(file, tensors);
  }
};

// The sparse layer keeps `experts` of its 4 experts, `width` neurons of each.
artifact::TrimPlan even_plan(
    const model::ModelReader& reader,
    const std::vector<std::int64_t>& experts,
    const std::vector<std::int64_t>& neurons) {
  artifact::TrimPlan plan;
  plan.model_fingerprint = reader.fingerprint();
  plan.layers.resize(2);
  for (const std::int64_t e : experts) {
    plan.layers[1].experts.push_back({e, neurons});
  }
  plan.layers[1].top_k = 2;
  return plan;
}

std::vector<std::byte> bytes_of(
    const io::Checkpoint& checkpoint, const std::string& name) {
  std::vector<std::byte> bytes(checkpoint.require(name).bytes());
  checkpoint.read(name, bytes);
  return bytes;
}

at::Tensor tensor_of(const std::filesystem::path& folder, const char* name) {
  const auto file = artifact::load_tensors(folder / "model.safetensors");
  return file.tensors.at(kHead + name).to(at::kFloat);
}

void require_same_bytes(
    const model::ModelReader& from, const model::ModelReader& to) {
  REQUIRE(from.carried().size() == to.carried().size());
  for (const model::CarriedTensor& one : from.carried()) {
    CAPTURE(one.tensor->name);
    CHECK(
        (bytes_of(from.checkpoint(), one.tensor->name) ==
         bytes_of(to.checkpoint(), one.tensor->name)));
  }
}

TEST_CASE("Carried tensors stay as they are in Fettle's own form") {
  const ModelWithHead tiny;
  const model::ModelReader reader(tiny.path());
  REQUIRE(reader.carried().size() == 16);
  // Experts of several widths, which no other program reads.
  auto plan = even_plan(reader, {0, 1, 3}, {0, 2});
  plan.layers[1].experts[1].neurons = {1};
  const TemporaryFolder own;
  const auto result = trim_model(reader, plan, {}, own.path());
  CHECK(result.before.carried_bytes == reader.carried_bytes());
  CHECK(result.after.carried_bytes == reader.carried_bytes());
  CHECK(
      result.before.bytes - result.before.carried_bytes >
      result.after.bytes - result.after.carried_bytes);
  const model::ModelReader trimmed(own.path());
  require_same_bytes(reader, trimmed);
  CHECK(trimmed.config().json.at("num_nextn_predict_layers") == 1);
}

TEST_CASE("A head's experts are cut along with those of the layers") {
  const bool stacked = GENERATE(false, true);
  const ModelWithHead tiny({.stacked = stacked});
  const model::ModelReader reader(tiny.path());
  const TemporaryFolder out;
  trim_model(reader, even_plan(reader, {0, 1, 2}, {0, 4}), {}, out.path());
  // Kept: experts 1, 2, 3 and their last two neurons.
  CHECK(tensor_of(out.path(), "mlp.gate.weight")
            .equal(at::arange(8, 32, at::kFloat).view({3, 8})));
  at::Tensor gate, up, down;
  if (stacked) {
    const auto both = tensor_of(out.path(), "mlp.experts.gate_up_proj");
    REQUIRE(both.sizes() == at::IntArrayRef({3, 4, 8}));
    gate = both[1].narrow(0, 0, 2);
    up = both[1].narrow(0, 2, 2);
    down = tensor_of(out.path(), "mlp.experts.down_proj")[1];
  } else {
    gate = tensor_of(out.path(), "mlp.experts.1.gate_proj.weight");
    up = tensor_of(out.path(), "mlp.experts.1.up_proj.weight");
    down = tensor_of(out.path(), "mlp.experts.1.down_proj.weight");
  }
  const at::Tensor kept = rising(2, 6, 8).narrow(0, 4, 2);
  CHECK(gate.equal(kept));
  CHECK(up.equal(kept + 0.5));
  CHECK(down.equal(kept.t()));
  const model::ModelReader trimmed(out.path());
  CHECK(trimmed.carried().size() == (stacked ? 6 : 13));
  for (const char* name : {"eh_proj.weight", "enorm.weight"}) {
    CHECK(
        (bytes_of(reader.checkpoint(), kHead + name) ==
         bytes_of(trimmed.checkpoint(), kHead + name)));
  }
}

TEST_CASE("A head is left out, and config.json says so") {
  const ModelWithHead tiny;
  const model::ModelReader reader(tiny.path());
  const auto plan = even_plan(reader, {0, 1, 2, 3}, {0, 1, 2});
  const TemporaryFolder out;
  const auto result = trim_model(reader, plan, {.mtp = Mtp::kDrop}, out.path());
  CHECK(result.after.carried_bytes == 0);
  const model::ModelReader trimmed(out.path());
  CHECK(trimmed.carried().empty());
  CHECK(trimmed.config().json.at("num_nextn_predict_layers") == 0);
}

TEST_CASE("A head that can't be cut along is left out, or refused") {
  const auto [options, why] = GENERATE(
      std::pair{
          HeadOptions{.experts = 2},
          std::string("it has 2 experts, fewer than the 3")},
      std::pair{
          HeadOptions{.shared = 20}, std::string("have 20 neurons, more than")},
      std::pair{
          HeadOptions{.first_width = 5},
          std::string("its experts differ in width")});
  const ModelWithHead tiny(options);
  const model::ModelReader reader(tiny.path());
  const auto plan = even_plan(reader, {0, 1, 2}, {0, 1});
  const auto config = trimmed_config(reader.config(), plan, Repair::kNone);
  CHECK_THROWS_AS(artifact::CarriedCopy(reader, config, Mtp::kKeep), UserError);
  CHECK_THROWS_WITH(
      artifact::CarriedCopy(reader, config, Mtp::kKeep),
      Contains(why) && Contains("--mtp drop"));
  const artifact::CarriedCopy dropped(reader, config, Mtp::kAuto);
  CHECK(dropped.specs().empty());
  std::string shown;
  ConsoleReporter reporter(
      {.write = [&](std::string_view text) { shown += text; },
       .seconds = [] { return 0.0; }});
  dropped.note(&reporter, "trim");
  CHECK_THAT(shown, Contains("trim: ") && Contains(why));
}

TEST_CASE("Choices about heads have names") {
  for (const Mtp mtp : {Mtp::kAuto, Mtp::kKeep, Mtp::kDrop}) {
    CHECK(artifact::parse_mtp(artifact::mtp_name(mtp)) == mtp);
  }
  CHECK_THROWS_AS(artifact::parse_mtp("cut"), UserError);
  CHECK_THROWS_WITH(artifact::parse_mtp("cut"), Contains("keep or drop"));
}

}  // namespace
}  // namespace fettle::trim
