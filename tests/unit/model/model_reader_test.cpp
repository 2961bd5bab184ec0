// SPDX-License-Identifier: Apache-2.0
#include "model/weights/model_reader.h"

#include <catch2/catch.hpp>

#include <limits>

#include "core/error.h"
#include "model/causal_lm.h"
#include "model/weights/weight_view.h"
#include "model_folder.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::ModelFolder;
using fettle::model::testing::sample;

namespace {

const std::vector<std::string> kFamilies = {
    "qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "deepseek_v2"};

void check_block(
    ModelFolder& folder,
    const at::Tensor& gate_up,
    const at::Tensor& down,
    const std::array<WeightId, 3>& ids) {
  const std::int64_t width = down.size(0);
  CHECK(at::equal(gate_up.narrow(0, 0, width), folder[ids[0]]));
  CHECK(at::equal(gate_up.narrow(0, width, width), folder[ids[1]]));
  CHECK(at::equal(down, folder[ids[2]].t()));
}

// Every expert's rows of the bank are that expert's stored matrices.
void check_experts(
    ModelFolder& folder, const ModelReader& reader, std::int64_t l) {
  const ExpertBank bank = reader.read_layer(l, at::kFloat).experts;
  REQUIRE(bank.size() == reader.config().layers[l].num_experts());
  for (std::int64_t e = 0; e < bank.size(); ++e) {
    check_block(
        folder,
        bank.gate_up.narrow(0, 2 * bank.offsets[e], 2 * bank.width(e)),
        bank.down.narrow(0, bank.offsets[e], bank.width(e)),
        {{{Role::kExpertGate, l, e},
          {Role::kExpertUp, l, e},
          {Role::kExpertDown, l, e}}});
  }
}

}  // namespace

TEST_CASE("every family's weights are read as they were stored") {
  for (const std::string& family : kFamilies) {
    INFO(family);
    ModelFolder folder(sample(family));
    const ModelReader reader(folder.write());
    for (const WeightId& id : model_weights(reader.config())) {
      CHECK(at::equal(reader.read(id), folder[id]));
      CHECK(reader.dtype(id) == at::kFloat);
      // The same in pieces, the last a short one.
      std::vector<at::Tensor> pieces;
      reader.read_rows(id, 3, [&](std::int64_t first, const at::Tensor& rows) {
        CHECK(first == 3 * static_cast<std::int64_t>(pieces.size()));
        pieces.push_back(rows);
      });
      CHECK(at::equal(at::cat(pieces), folder[id]));
    }
    check_experts(folder, reader, 1);
    const LayerWeights layer = reader.read_layer(1, at::kFloat);
    CHECK(at::equal(layer.router, folder[WeightId{Role::kRouter, 1}]));
    CHECK(at::equal(layer.input_norm, folder[WeightId{Role::kInputNorm, 1}]));
    CHECK(at::equal(layer.attention.o_proj, folder[WeightId{Role::kOProj, 1}]));
    CHECK(layer.bytes() == loaded_bytes(reader, at::kFloat).layers[1].kept);
  }
}

TEST_CASE("dense and shared MLPs are packed like experts") {
  ModelFolder folder(sample("deepseek_v2"));
  const ModelReader reader(folder.write());
  const LayerWeights dense = reader.read_layer(0, at::kFloat);
  CHECK_FALSE(dense.router.defined());
  CHECK(dense.bytes() == loaded_bytes(reader, at::kFloat).layers[0].kept);
  check_block(
      folder,
      dense.dense.gate_up,
      dense.dense.down,
      {{{Role::kDenseGate, 0}, {Role::kDenseUp, 0}, {Role::kDenseDown, 0}}});
  const LayerWeights sparse = reader.read_layer(1, at::kFloat);
  check_block(
      folder,
      sparse.shared.gate_up,
      sparse.shared.down,
      {{{Role::kSharedGate, 1}, {Role::kSharedUp, 1}, {Role::kSharedDown, 1}}});
}

TEST_CASE("stacked experts are cut out of their stack") {
  for (const std::string& family : kFamilies) {
    INFO(family);
    ModelFolder apart(sample(family));
    ModelFolder fused(sample(family));
    fused.fuse(1, "model.layers.1.mlp.experts.");
    const ModelReader reader(fused.write());
    check_experts(apart, reader, 1);
    const WeightId last{Role::kExpertUp, 1, 3};
    CHECK(at::equal(reader.read(last), apart[last]));
  }
}

TEST_CASE("Mixtral's router is read under both names") {
  ModelFolder folder(sample("mixtral"));
  const std::string stock = "model.layers.0.block_sparse_moe.gate.weight";
  folder["model.layers.0.mlp.gate.weight"] = folder[stock];
  const at::Tensor router = folder[stock];
  folder.erase(stock);
  const ModelReader reader(folder.write());
  CHECK(at::equal(reader.read({Role::kRouter, 0}), router));
}

TEST_CASE("experts of any width, with constants") {
  ModelConfig config = sample("qwen3_moe");
  config.layers[0].expert_widths = {5, 0, 3};
  config.layers[0].has_constants = true;
  config.layers[1].expert_widths = {0, 0};
  config.layers[1].top_k = 1;
  ModelFolder folder(config);
  const ModelReader reader(folder.write());
  CHECK((reader.config().layers == config.layers));
  check_experts(folder, reader, 0);
  check_experts(folder, reader, 1);
  const LayerWeights layer = reader.read_layer(0, at::kFloat);
  CHECK(layer.experts.offsets == std::vector<std::int64_t>{0, 5, 5, 8});
  CHECK(at::equal(
      layer.experts.constant, folder[WeightId{Role::kExpertConstant, 0}]));
  CHECK(
      reader.read({Role::kExpertDown, 0, 1}).sizes().vec() ==
      std::vector<std::int64_t>{8, 0});
}

TEST_CASE("a router's bias and condensers come with their layer") {
  ModelConfig config = sample("mixtral");
  config.layers[1].router_bias = true;
  config.layers[1].condensers = {2};
  ModelFolder folder(config);
  const WeightId bias{Role::kRouterBias, 1};
  folder[bias] = folder[bias].to(at::kBFloat16);
  const ModelReader reader(folder.write());
  const LayerWeights layer = reader.read_layer(1, at::kHalf);
  CHECK(at::equal(layer.router_bias, folder[bias].to(at::kFloat)));
  CHECK(layer.condensers == std::vector<std::int64_t>{2});
  CHECK(layer.bytes() == loaded_bytes(reader, at::kHalf).layers[1].kept);
  CHECK_FALSE(reader.read_layer(0, at::kHalf).router_bias.defined());
  CHECK(reader.read_layer(0, at::kHalf).condensers.empty());

  ModelFolder without(config);
  without.erase("model.layers.1.block_sparse_moe.gate.logit_bias");
  CHECK_THROWS_WITH(
      ModelReader(without.write()), Catch::Contains("logit_bias"));
  ModelFolder unasked(sample("mixtral"));
  unasked["model.layers.1.block_sparse_moe.gate.logit_bias"] = at::zeros({4});
  CHECK_THROWS_WITH(
      ModelReader(unasked.write()), Catch::Contains("is no weight of"));
}

TEST_CASE("types: stored as they are, layers in the type asked for") {
  for (const auto stored : {at::kFloat, at::kBFloat16, at::kHalf}) {
    ModelFolder folder(sample("deepseek_v2"));
    const ModelConfig config = sample("deepseek_v2");
    for (const WeightId& id : model_weights(config)) {
      folder[id] = folder[id].to(stored);
    }
    const ModelReader reader(folder.write());
    const WeightId down{Role::kExpertDown, 1, 2};
    CHECK(reader.dtype(down) == stored);
    CHECK(at::equal(reader.read(down), folder[down]));
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const LayerWeights layer = reader.read_layer(1, type);
      CHECK(layer.router.scalar_type() == at::kFloat);
      CHECK(layer.input_norm.scalar_type() == type);
      CHECK(layer.bytes() == loaded_bytes(reader, type).layers[1].kept);
      CHECK(
          reader.read_layer(1, type, true).bytes() ==
          loaded_bytes(reader.config(), reader.forms(), type, true)
              .layers[1]
              .kept);
      const at::Tensor expected = folder[down].t().to(type);
      CHECK(at::equal(
          layer.experts.down.narrow(0, layer.experts.offsets[2], 6), expected));
      CHECK(at::equal(
          reader.read_global(Role::kLmHead, type),
          folder[WeightId{Role::kLmHead}].to(type)));
    }
  }
}

TEST_CASE("matrices larger than a reading piece come whole") {
  const ModelConfig config = sample(
      "mixtral",
      {{"hidden_size", 512},
       {"intermediate_size", 1100},
       {"vocab_size", 3000}});
  ModelFolder folder(config);
  const WeightId gate{Role::kExpertGate, 0, 1};
  folder[gate] = folder[gate].to(at::kBFloat16);
  const ModelReader reader(folder.write());
  const ExpertBank bank = reader.read_layer(0, at::kFloat).experts;
  CHECK(at::equal(
      bank.gate_up.narrow(0, 2200, 1100), folder[gate].to(at::kFloat)));
  CHECK(at::equal(
      bank.down.narrow(0, 1100, 1100),
      folder[WeightId{Role::kExpertDown, 0, 1}].t()));
  CHECK(at::equal(
      reader.read_global(Role::kEmbedTokens, at::kFloat),
      folder[WeightId{Role::kEmbedTokens}]));
}

TEST_CASE("rows of the embeddings come without the others") {
  const auto stored = GENERATE(at::kFloat, at::kBFloat16, at::kHalf);
  const auto type = GENERATE(at::kFloat, at::kBFloat16);
  ModelFolder folder(sample("mixtral", {{"vocab_size", 300}}));
  at::Tensor& embeddings = folder[WeightId{Role::kEmbedTokens}];
  embeddings = embeddings.to(stored);
  const at::Tensor values = embeddings.to(type);
  const at::Tensor ids =
      at::tensor(std::vector<std::int64_t>{7, 299, 8, 7, 0, 100, 9, 6});
  const ModelReader reader(folder.write());
  CHECK(at::equal(
      reader.read_global_rows(Role::kEmbedTokens, ids, type),
      values.index_select(0, ids)));
  embeddings[150][3] = std::numeric_limits<float>::infinity();
  const ModelReader damaged(folder.write());
  CHECK_NOTHROW(damaged.read_global_rows(Role::kEmbedTokens, ids, type));
  CHECK_THROWS_WITH(
      damaged.read_global_rows(Role::kEmbedTokens, ids + 50, type),
      Catch::Contains("holds 1 values that are NaN, infinite"));
}

TEST_CASE("a tied head is the embeddings, unless the file says otherwise") {
  const ModelConfig config = sample("olmoe", {{"tie_word_embeddings", true}});
  ModelFolder folder(config);
  const CausalLm model(folder.write(), {});
  const GlobalWeights& globals = model.globals();
  CHECK(globals.lm_head.is_same(globals.embed_tokens));
  const GlobalBytes bytes = global_bytes(
      config, model.reader().forms(), at::kFloat, /*decodes=*/true);
  CHECK(bytes.all == (11 * 8 + 8) * 4);
  CHECK(bytes.head == 11 * 8 * 4);

  ModelFolder same(config);
  same["lm_head.weight"] = same[WeightId{Role::kEmbedTokens}].clone();
  CHECK_NOTHROW(CausalLm(same.write(), {}));

  ModelFolder other(config);
  other["lm_head.weight"] = other[WeightId{Role::kEmbedTokens}] + 1;
  CHECK_THROWS_WITH(
      CausalLm(other.write(), {}),
      Catch::Contains("differs from the embeddings"));

  ModelFolder misshapen(config);
  misshapen["lm_head.weight"] = at::zeros({10, 8});
  CHECK_THROWS_WITH(
      ModelReader(misshapen.write()), Catch::Contains("found [10, 8]"));
}

TEST_CASE("values that are not numbers are counted and named") {
  const std::string name = "model.layers.1.mlp.experts.2.down_proj.weight";
  for (const auto stored : {at::kFloat, at::kBFloat16, at::kHalf}) {
    ModelFolder folder(sample("olmoe"));
    folder[name] = folder[name].to(stored);
    folder[name][0][1] = std::numeric_limits<double>::quiet_NaN();
    folder[name][3][0] = -std::numeric_limits<double>::infinity();
    const ModelReader reader(folder.write());
    CHECK_NOTHROW(reader.read_layer(0, at::kFloat));
    CHECK_THROWS_WITH(
        reader.read_layer(1, at::kFloat),
        Catch::Contains(name) && Catch::Contains("holds 2 values"));
  }
  ModelFolder large(sample("olmoe"));
  large[name][0][0] = 1e6;
  const ModelReader reader(large.write());
  CHECK_NOTHROW(reader.read_layer(1, at::kBFloat16));
  CHECK_THROWS_WITH(
      reader.read_layer(1, at::kHalf), Catch::Contains("holds 1 values"));
}

TEST_CASE(
    "a weight's view in a layer has the stored shape and writes through") {
  for (const std::string& family : kFamilies) {
    ModelFolder folder(sample(family));
    const ModelReader reader(folder.write());
    const LayerWeights layer = reader.read_layer(1, at::kFloat);
    for (const WeightId& id : layer_weights(reader.config(), 1)) {
      CHECK(at::equal(weight_view(layer, id), folder[id]));
    }
    const WeightId down{Role::kExpertDown, 1, 2};
    weight_view(layer, down)[1][3] = 7777;
    CHECK(
        layer.experts.down[layer.experts.offsets[2] + 3][1].item<float>() ==
        7777);
  }
}

TEST_CASE("a model is told apart by what its router divides by") {
  const auto fingerprint_of = [](double least) {
    ModelFolder folder(sample("ernie4_5_moe"));
    folder.json()["moe_norm_min"] = least;
    return ModelReader(folder.write()).fingerprint();
  };
  CHECK(fingerprint_of(1e-12) != fingerprint_of(1e-6));
}

TEST_CASE("a model is told apart by its values, not by how files lie") {
  const auto fingerprint_of = [](const auto& change) {
    ModelFolder folder(sample("qwen3_moe"));
    change(folder);
    return ModelReader(folder.write()).fingerprint();
  };
  const std::string whole = fingerprint_of([](ModelFolder&) {});
  CHECK(whole.size() == 32);
  CHECK(fingerprint_of([](ModelFolder& folder) {
          folder.fuse(1, "model.layers.1.mlp.experts.");
        }) == whole);
  CHECK(fingerprint_of([](ModelFolder& folder) {
          folder.json()["transformers_version"] = "5.0";
          folder.json()["eos_token_id"] = 3;
        }) == whole);
  CHECK(fingerprint_of([](ModelFolder& folder) {
          folder.json()["norm_topk_prob"] =
              !folder.json().value("norm_topk_prob", false);
        }) != whole);
  CHECK(fingerprint_of([](ModelFolder& folder) {
          const WeightId id{Role::kExpertUp, 1, 0};
          folder[id] = folder[id] + 1;
        }) != whole);
  CHECK(fingerprint_of([](ModelFolder& folder) {
          const WeightId id{Role::kExpertUp, 1, 0};
          folder[id] = folder[id].to(at::kBFloat16);
        }) != whole);
}
