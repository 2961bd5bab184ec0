// SPDX-License-Identifier: Apache-2.0
// Models with packed weights: read, multiplied as they are, and unpacked.
#include <catch2/catch.hpp>

#include "core/error.h"
#include "kernels/gptq.h"
#include "model/causal_lm.h"
#include "model/layers/decoder_layer.h"
#include "model/layers/token_batch.h"
#include "model/weights/model_reader.h"
#include "model/weights/packed_layer.h"
#include "model/weights/weight_view.h"
#include "model_folder.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::ModelFolder;
using fettle::model::testing::sample;
using kernels::PackedKind;

namespace {

const kernels::QuantGrid kInt4{PackedKind::kInt, 4, false, 4, 0};
const kernels::QuantGrid kTernary{PackedKind::kTernary, 0, true, 6, 0};

// Small enough that sums are not lost in rounding.
void scale_down(ModelFolder& folder, const ModelConfig& config) {
  for (const WeightId& id : model_weights(config)) {
    folder[id] = folder[id] * 0.003;
  }
}

bool may_pack(Role role) {
  return is_mlp_role(role) || is_attention_role(role);
}

// Final hidden states of a few tokens, token by token when `keep_packed`.
at::Tensor layer_output(
    const std::filesystem::path& folder,
    std::int64_t tokens,
    bool packed,
    bool experts_apart = false) {
  ModelOptions options;
  options.keep_packed = packed;
  options.experts_apart = experts_apart;
  CausalLm model(folder, options);
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < tokens; ++i) {
    ids.push_back(static_cast<std::int32_t>(i % 11));
  }
  const MicroBatch batch = make_micro_batch(
      model.config(),
      model::pack({Sequence{ids, ids, {}}}, model.config().vocab_size));
  at::Tensor x = embed(model, batch.tokens.ids);
  for (std::int64_t l = 0; l < model.config().num_layers(); ++l) {
    const auto weights = model.acquire(l, -1);
    CHECK((weights->packed != nullptr) == packed);
    x = decoder_layer({model.config(), l, batch}, *weights, x);
  }
  return x;
}

}  // namespace

TEST_CASE("packed weights are read, unpacked, with the values they stand for") {
  const std::string family =
      GENERATE("qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "deepseek_v2");
  const ModelConfig config = sample(family);
  ModelFolder folder(config);
  std::vector<std::pair<WeightId, at::Tensor>> packed;
  for (const WeightId& id : model_weights(config)) {
    // Some experts stay plain.
    if (!may_pack(id.role) || id.expert == 1) continue;
    packed.emplace_back(id, folder.pack(id, id.expert == 2 ? kTernary : kInt4));
  }
  const ModelReader reader(folder.write());
  for (const auto& [id, values] : packed) {
    CHECK(at::equal(reader.read(id), values));
    std::vector<at::Tensor> pieces;
    reader.read_rows(id, 5, [&](std::int64_t, const at::Tensor& rows) {
      pieces.push_back(rows);
    });
    CHECK(at::equal(at::cat(pieces), values));
    CHECK(reader.form(id).packed());
    CHECK(reader.form(id).packed_bytes == reader.read_stored(id).numel());
  }
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const LayerWeights kept = reader.read_layer(l, at::kFloat);
    REQUIRE(kept.packed != nullptr);
    const LayerWeights dense = unpacked(kept, config, l, at::kFloat);
    CHECK(dense.packed == nullptr);
    CHECK(dense.bytes() == loaded_bytes(reader, at::kFloat).layers[l].unpacked);
    const LoadedBytes::Layer apart =
        loaded_bytes(config, reader.forms(), at::kFloat, true).layers[l];
    CHECK(reader.read_layer(l, at::kFloat, true).bytes() <= apart.kept);
    CHECK(
        unpacked(kept, config, l, at::kFloat, true).bytes() == apart.unpacked);
    for (const WeightId& id : layer_weights(config, l)) {
      CHECK(at::equal(weight_view(dense, id), reader.read(id)));
    }
  }
}

TEST_CASE("products with packed weights are those with unpacked ones") {
  const std::string family =
      GENERATE("qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "deepseek_v2");
  const auto tokens = GENERATE(1, 3, 40);
  const ModelConfig config = sample(family);
  ModelFolder folder(config);
  scale_down(folder, config);
  for (const WeightId& id : model_weights(config)) {
    if (may_pack(id.role) && id.expert != 1) {
      folder.pack(id, id.expert == 2 ? kTernary : kInt4);
    }
  }
  const auto& path = folder.write();
  const at::Tensor dense = layer_output(path, tokens, false);
  CHECK(at::equal(layer_output(path, tokens, false, true), dense));
  const at::Tensor packed = layer_output(path, tokens, true);
  CHECK(
      (dense - packed).abs().max().item<double>() <=
      1e-5 * dense.abs().max().item<double>());
}

TEST_CASE("routers and norms are never packed") {
  ModelFolder folder(sample("qwen3_moe"));
  folder.pack({Role::kRouter, 0}, kInt4);
  CHECK_THROWS_WITH(
      ModelReader(folder.write()), Catch::Contains("never packed"));
}

TEST_CASE("a weight is not both packed and plain") {
  const ModelConfig config = sample("qwen3_moe");
  ModelFolder folder(config);
  const WeightId id{Role::kQProj, 0};
  const at::Tensor plain = folder[id];
  folder.pack(id, kInt4);
  folder[id] = plain;
  CHECK_THROWS_WITH(
      ModelReader(folder.write()), Catch::Contains("is also stored as"));
}

TEST_CASE("a packed weight has the shape that config.json says") {
  const ModelConfig config = sample("qwen3_moe");
  ModelFolder folder(config);
  const WeightId id{Role::kExpertUp, 0, 0};
  folder[id] = folder[id].t().contiguous();
  folder.pack(id, kInt4);
  CHECK_THROWS_WITH(
      ModelReader(folder.write()), Catch::Contains("expected shape [6, 8]"));
}

TEST_CASE("packed embeddings and head are unpacked when they are read") {
  const ModelConfig config = sample("qwen3_moe");
  ModelFolder folder(config);
  const at::Tensor embeddings = folder.pack({Role::kEmbedTokens}, kInt4);
  const ModelReader reader(folder.write());
  CHECK(at::equal(
      reader.read_global(Role::kEmbedTokens, at::kFloat), embeddings));
  const at::Tensor ids = at::tensor(std::vector<std::int64_t>{5, 6, 1, 5});
  CHECK(at::equal(
      reader.read_global_rows(Role::kEmbedTokens, ids, at::kFloat),
      embeddings.index_select(0, ids)));
}
