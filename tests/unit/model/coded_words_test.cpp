// SPDX-License-Identifier: Apache-2.0
// Models whose weights lie as integers in words, as compressed-tensors, GPTQ
// and AWQ pack them, written here from the layouts' descriptions.
#include <catch2/catch.hpp>
#include <memory>

#include "core/error.h"
#include "model/family/stored_source.h"
#include "model/weights/model_reader.h"
#include "model_folder.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::ModelFolder;
using fettle::model::testing::sample;

namespace {

const WeightId kDown{Role::kExpertDown, 0, 2};  // [8, 6]
const std::string kModule = "model.layers.0.mlp.experts.2.down_proj";
constexpr std::int64_t kRows = 8, kCols = 6;

at::Tensor codes_of(std::int64_t bits) {
  return at::arange(kRows * kCols, at::kLong)
      .mul(7)
      .remainder(1 << bits)
      .reshape({kRows, kCols});
}

// Rows of codes as a dense stream of bits in int32 words, bit by bit.
at::Tensor stream(const at::Tensor& codes, std::int64_t bits) {
  const std::int64_t n = codes.size(1);
  at::Tensor words =
      at::zeros({codes.size(0), (n * bits + 31) / 32}, at::kLong);
  for (std::int64_t r = 0; r < codes.size(0); ++r) {
    for (std::int64_t i = 0; i < n * bits; ++i) {
      const auto code = codes[r][i / bits].item<std::int64_t>();
      if ((code >> (i % bits) & 1) == 0) continue;
      words[r][i / 32] += std::int64_t{1} << (i % 32);
    }
  }
  return words.to(at::kInt);
}

at::Tensor awq_words(const at::Tensor& codes) {
  constexpr std::int64_t kOrder[] = {0, 2, 4, 6, 1, 3, 5, 7};
  at::Tensor words = at::zeros({codes.size(0), codes.size(1) / 8}, at::kLong);
  for (std::int64_t i = 0; i < 8; ++i) {
    const at::Tensor every =
        codes.slice(1, kOrder[i], codes.size(1), 8).to(at::kLong);
    words += every * (std::int64_t{1} << (4 * i));
  }
  return words.to(at::kInt);
}

// (code - zero) x scale, of groups [rows, groups] of `group` columns.
at::Tensor group_values(
    const at::Tensor& codes,
    const at::Tensor& zeros,
    const at::Tensor& scales,
    std::int64_t group) {
  const auto spread = [&](const at::Tensor& t) {
    return t.to(at::kFloat).repeat_interleave(group, 1).narrow(1, 0, kCols);
  };
  return (codes.to(at::kFloat) - spread(zeros)) * spread(scales);
}

at::Tensor scales_of(std::int64_t groups) {
  return at::arange(kRows * groups, at::kFloat)
      .add(1)
      .div(4)
      .reshape({kRows, groups});
}

at::Tensor zeros_of(std::int64_t groups, std::int64_t most) {
  return at::arange(kRows * groups, at::kLong)
      .remainder(most)
      .reshape({kRows, groups});
}

struct CodedModel {
  std::unique_ptr<ModelFolder> owned;
  ModelFolder& folder;
  explicit CodedModel(const Json& quantization)
      : owned(std::make_unique<ModelFolder>(sample("olmoe"))), folder(*owned) {
    folder.json()["quantization_config"] = quantization;
    folder.json()["dtype"] = "float32";
    folder.erase(kModule + ".weight");
  }
  void check(const at::Tensor& expected) {
    const ModelReader reader(folder.write());
    CHECK(at::equal(reader.read(kDown), expected));
    std::vector<at::Tensor> pieces;
    reader.read_rows(kDown, 3, [&](std::int64_t, const at::Tensor& rows) {
      pieces.push_back(rows);
    });
    CHECK(at::equal(at::cat(pieces), expected));
    const ExpertBank bank = reader.read_layer(0, at::kFloat).experts;
    CHECK(at::equal(bank.down.narrow(0, bank.offsets[2], kCols), expected.t()));
  }
  void refused(const std::string& text) {
    const auto path = folder.write();
    CHECK_THROWS_AS(ModelReader(path), UserError);
    CHECK_THROWS_WITH(ModelReader(path), Catch::Contains(text));
  }
};

Json compressed(std::int64_t bits, const Json& group) {
  Json weights = {{"num_bits", bits}, {"strategy", "channel"}};
  if (!group.is_null()) {
    weights["strategy"] = "group";
    weights["group_size"] = group;
  }
  return {
      {"quant_method", "compressed-tensors"},
      {"format", "pack-quantized"},
      {"config_groups", {{"group_0", {{"weights", weights}}}}}};
}

CodedModel packed_model(std::int64_t bits, std::int64_t group) {
  CodedModel model(compressed(bits, group > 0 ? Json(group) : Json()));
  const std::int64_t groups = group > 0 ? kCols / group : 1;
  model.folder[kModule + ".weight_packed"] = stream(codes_of(bits), bits);
  model.folder[kModule + ".weight_scale"] = scales_of(groups);
  model.folder[kModule + ".weight_shape"] = at::tensor({kRows, kCols});
  return model;
}

Json gptq(std::int64_t bits, const char* format = "gptq") {
  return {
      {"quant_method", "gptq"},
      {"bits", bits},
      {"group_size", 2},
      {"checkpoint_format", format}};
}

// Groups of two inputs.
CodedModel gptq_model(std::int64_t bits, const Json& quantization) {
  CodedModel model(quantization);
  const bool first = quantization.at("checkpoint_format") == "gptq";
  model.folder[kModule + ".qweight"] = stream(codes_of(bits), bits).t();
  model.folder[kModule + ".scales"] = scales_of(3).t();
  const std::int64_t most = (1 << bits) - 1;
  model.folder[kModule + ".qzeros"] =
      stream(zeros_of(3, most).t() + (first ? 0 : 1), bits);
  return model;
}

at::Tensor gptq_zeros(std::int64_t bits) {
  return zeros_of(3, (1 << bits) - 1) + 1;
}

const Json kAwq = {
    {"quant_method", "awq"},
    {"bits", 4},
    {"group_size", 3},
    {"version", "gemm"}};

CodedModel awq_model() {
  CodedModel model(kAwq);
  model.folder[kModule + ".qweight"] = awq_words(codes_of(4).t());
  model.folder[kModule + ".scales"] = scales_of(2).t().to(at::kHalf);
  model.folder[kModule + ".qzeros"] = awq_words(zeros_of(2, 16).t());
  return model;
}

}  // namespace

TEST_CASE("integers of compressed-tensors, with and without zero points") {
  const std::int64_t bits = GENERATE(2, 3, 4, 5, 8);
  const std::int64_t group = GENERATE(0, 2);
  CodedModel model = packed_model(bits, group);
  const std::int64_t groups = group > 0 ? 3 : 1;
  const std::int64_t each = group > 0 ? group : kCols;
  const at::Tensor middle =
      at::full({kRows, groups}, std::int64_t{1} << (bits - 1));
  model.check(group_values(codes_of(bits), middle, scales_of(groups), each));
  const at::Tensor zeros = zeros_of(groups, 1 << bits);
  model.folder[kModule + ".weight_zero_point"] = stream(zeros.t(), bits).t();
  model.check(group_values(codes_of(bits), zeros, scales_of(groups), each));
}

TEST_CASE("columns of compressed-tensors in groups of their own") {
  CodedModel model = packed_model(4, 2);
  const at::Tensor groups = at::tensor({2, 0, 1, 1, 0, 2}, at::kInt);
  model.folder[kModule + ".weight_g_idx"] = groups;
  const at::Tensor scales = scales_of(3).index_select(1, groups);
  model.check((codes_of(4).to(at::kFloat) - 8) * scales);
  model.folder[kModule + ".weight_g_idx"] =
      at::tensor({2, 0, 1, 1, 0, 3}, at::kInt);
  CHECK_THROWS_WITH(
      ModelReader(model.folder.write()).read(kDown),
      Catch::Contains("names group 3, expected one of 3"));
}

TEST_CASE("fp8 and int8 of compressed-tensors") {
  Json quantization = compressed(8, Json());
  quantization["format"] = "float-quantized";
  Json& weights = quantization["config_groups"]["group_0"]["weights"];
  weights["type"] = "float";
  const std::string name = kModule + ".weight";
  const at::Tensor codes = codes_of(4).to(at::kFloat) - 8;
  CodedModel rows(quantization);
  rows.folder[name] = codes.to(at::kFloat8_e4m3fn);
  rows.folder[name + "_scale"] = scales_of(1).to(at::kBFloat16);
  rows.check(codes * scales_of(1));
  weights["strategy"] = "tensor";
  CodedModel one(quantization);
  one.folder[name] = codes.to(at::kFloat8_e4m3fn);
  one.folder[name + "_scale"] = at::full({1}, 0.5);
  one.check(codes * 0.5);
  weights["strategy"] = "block";
  weights["block_structure"] = {5, 4};
  CodedModel blocks(quantization);
  blocks.folder[name] = codes.to(at::kFloat8_e4m3fn);
  const at::Tensor grid = at::tensor({1.0, 2.0, 4.0, 8.0}).reshape({2, 2});
  blocks.folder[name + "_scale"] = grid.to(at::kFloat);
  blocks.check(
      codes * grid.to(at::kFloat)
                  .repeat_interleave(5, 0)
                  .narrow(0, 0, kRows)
                  .repeat_interleave(4, 1)
                  .narrow(1, 0, kCols));
  weights["strategy"] = "channel";
  CodedModel ints(quantization);
  ints.folder[name] = codes.to(at::kChar);
  ints.folder[name + "_scale"] = scales_of(1);
  ints.folder[name + "_zero_point"] = zeros_of(1, 7).to(at::kChar);
  ints.check(group_values(codes, zeros_of(1, 7), scales_of(1), kCols));
}

TEST_CASE("parts of compressed-tensors that don't fit each other are named") {
  CodedModel cut = packed_model(4, 2);
  cut.folder[kModule + ".weight_packed"] = at::zeros({8, 2}, at::kInt);
  cut.refused("has shape [8, 2], which holds no codes of [8, 6] weights");
  CodedModel mistyped = packed_model(4, 2);
  mistyped.folder[kModule + ".weight_packed"] = at::zeros({8, 1});
  mistyped.refused("is stored as F32, expected I32");
  CodedModel scaleless = packed_model(4, 2);
  scaleless.folder.erase(kModule + ".weight_scale");
  scaleless.refused(kModule + ".weight_scale: is missing");
  CodedModel misgrouped = packed_model(4, 2);
  misgrouped.folder[kModule + ".weight_scale"] = scales_of(2);
  misgrouped.refused("does not fit weights of [8, 6] in blocks of 1 x 2");
  CodedModel zeros = packed_model(4, 2);
  zeros.folder[kModule + ".weight_zero_point"] = at::zeros({8, 3}, at::kInt);
  zeros.refused("expected shape [1, 3] for codes packed by rows");
  CodedModel columns = packed_model(4, 2);
  columns.folder[kModule + ".weight_g_idx"] = at::zeros({5}, at::kInt);
  columns.refused("expected shape [6] for a group a column");
  CodedModel none(compressed(4, 2));
  none.refused(kModule + ".weight: is missing");
}

TEST_CASE("GPTQ of both versions, by groups in order") {
  const std::int64_t bits = GENERATE(2, 3, 4, 8);
  const auto format = GENERATE(as<const char*>{}, "gptq", "gptq_v2");
  CodedModel model = gptq_model(bits, gptq(bits, format));
  model.check(group_values(codes_of(bits), gptq_zeros(bits), scales_of(3), 2));
}

TEST_CASE("GPTQ with inputs that were quantized in another order") {
  CodedModel model = gptq_model(4, gptq(4));
  const at::Tensor groups = at::tensor({2, 0, 1, 1, 0, 2}, at::kInt);
  model.folder[kModule + ".g_idx"] = groups;
  const at::Tensor zeros = gptq_zeros(4).index_select(1, groups);
  const at::Tensor scales = scales_of(3).index_select(1, groups);
  model.check((codes_of(4).to(at::kFloat) - zeros) * scales);
}

TEST_CASE("GPTQ modules with other bits than the model's") {
  CodedModel model = gptq_model(8, gptq(4));
  model.check(group_values(codes_of(8), gptq_zeros(8), scales_of(3), 2));
}

TEST_CASE("biases of zeros beside GPTQ's codes are left out") {
  CodedModel model = gptq_model(4, gptq(4));
  model.folder[kModule + ".bias"] = at::zeros({kRows});
  model.check(group_values(codes_of(4), gptq_zeros(4), scales_of(3), 2));
  model.folder[kModule + ".bias"][1] = 1.0;
  model.refused(kModule + ".bias: is no weight of a olmoe model");
}

TEST_CASE("parts of GPTQ that don't fit each other are named") {
  CodedModel cut = gptq_model(4, gptq(4));
  cut.folder[kModule + ".qweight"] = at::zeros({5, 8}, at::kInt);
  cut.refused("has shape [5, 8], which holds no codes of [8, 6] weights");
  CodedModel zeroless = gptq_model(4, gptq(4));
  zeroless.folder.erase(kModule + ".qzeros");
  zeroless.refused(kModule + ".qzeros: is missing");
  CodedModel groups = gptq_model(4, gptq(4));
  groups.folder[kModule + ".scales"] = scales_of(2).t();
  groups.refused("expected shape [3, 8] for groups of 2 inputs");
  CodedModel index = gptq_model(4, gptq(4));
  index.folder[kModule + ".g_idx"] = at::zeros({6}, at::kLong);
  index.refused(kModule + ".g_idx: is stored as I64, expected I32");
}

TEST_CASE("AWQ's words, with zero points and without") {
  CodedModel model = awq_model();
  model.check(group_values(codes_of(4), zeros_of(2, 16), scales_of(2), 3));
  model.folder.erase(kModule + ".qzeros");
  model.check(
      group_values(codes_of(4), at::full({kRows, 2}, 8), scales_of(2), 3));
}

TEST_CASE("parts of AWQ that don't fit each other are named") {
  CodedModel cut = awq_model();
  cut.folder[kModule + ".qweight"] = at::zeros({5, 1}, at::kInt);
  cut.refused("has shape [5, 1], which holds no codes of [8, 6] weights");
  CodedModel scales = awq_model();
  scales.folder[kModule + ".scales"] = scales_of(1).t();
  scales.refused("expected shape [2, 8] for groups of 3 inputs");
  CodedModel zeros = awq_model();
  zeros.folder[kModule + ".qzeros"] = at::zeros({1, 1}, at::kInt);
  zeros.refused("expected shape [2, 1] for a zero point a scale");
}

TEST_CASE("what a model's coder says that Fettle does not read is named") {
  const auto refused = [](const Json& quantization, const std::string& text) {
    Json json = testing::sample_json("olmoe");
    json["quantization_config"] = quantization;
    CHECK_THROWS_AS(parse_model_config(json, "config.json"), UserError);
    CHECK_THROWS_WITH(
        parse_model_config(json, "config.json"), Catch::Contains(text));
  };
  Json other = compressed(4, 2);
  other["format"] = "nvfp4-pack-quantized";
  refused(other, "'format' is nvfp4-pack-quantized");
  Json inner = compressed(4, 2);
  inner["config_groups"]["group_0"]["format"] = "marlin-24";
  refused(inner, "'format' is marlin-24");
  Json sparse = compressed(4, 2);
  sparse["sparsity_config"] = {{"format", "sparse-24-bitmask"}};
  refused(sparse, "'format' is sparse-24-bitmask; Fettle reads dense");
  Json turned = compressed(4, 2);
  turned["transform_config"] = {{"config_groups", {{"u", 1}}}};
  refused(turned, "'transform_config' turns weights");
  refused(compressed(9, 2), "'num_bits' is 9");
  refused(compressed(4, 0), "'group_size' is 0");
  Json token = compressed(4, 2);
  token["config_groups"]["group_0"]["weights"]["strategy"] = "token";
  refused(token, "'strategy' is token");
  refused({{"quant_method", "compressed-tensors"}}, "'config_groups'");
  refused(gptq(4, "marlin"), "'checkpoint_format' is marlin");
  refused(gptq(16), "'bits' is 16");
  Json groups = gptq(4);
  groups["group_size"] = 0;
  refused(groups, "'group_size' is 0, expected -1 or more");
  Json gemv = kAwq;
  gemv["version"] = "gemv";
  refused(gemv, "'version' is gemv; Fettle reads gemm");
  Json wide = kAwq;
  wide["bits"] = 8;
  refused(wide, "'bits' is 8");
  refused({{"quant_method", "fettle"}, {"format", 2}}, "'format' is not known");
}

TEST_CASE("a model's coder is found in its text part") {
  const Json nested = {{"text_config", {{"quantization_config", gptq(3)}}}};
  const StoredSource source =
      parse_stored_source(JsonObject(nested, "model", "config.json"));
  CHECK(source.method == SourceMethod::kGptq);
  CHECK(source.schemes.front().bits == 3);
}
