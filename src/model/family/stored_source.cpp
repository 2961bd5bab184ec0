// SPDX-License-Identifier: Apache-2.0
#include "model/family/stored_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "core/json_text.h"
#include "model/family/config_values.h"

namespace fettle::model {
namespace {

constexpr std::string_view kQuantization = "quantization_config";

void require_format(const JsonObject& config) {
  if (config.integer("format") == 1) return;
  config.refuse("format", "is not known; a newer Fettle may read it");
}

// A list of two sizes.
void read_block(const JsonObject& config, const char* key, CodeScheme& scheme) {
  const Json& block = config.at(key);
  const auto is_side = [](const Json& side) {
    return side.is_number_integer() && side.get<double>() >= 1 &&
           side.get<double>() <= static_cast<double>(kMaxDimension);
  };
  if (!block.is_array() || block.size() != 2 ||
      !std::ranges::all_of(block, is_side)) {
    config.refuse(
        key,
        fmt::format(
            "must be two whole numbers of at least 1, found {}", shown(block)));
  }
  scheme.block_rows = block[0].get<std::int64_t>();
  scheme.block_cols = block[1].get<std::int64_t>();
}

StoredSource parse_fp8(const JsonObject& config) {
  CodeScheme scheme;
  if (config.has("weight_block_size")) {
    read_block(config, "weight_block_size", scheme);
  }
  return {.method = SourceMethod::kFp8, .schemes = {scheme}};
}

// Formats whose codes are integers or of 8 bits. A group may have its own.
void check_compressed_format(const JsonObject& config) {
  constexpr std::array<std::string_view, 5> kKnown = {
      "pack-quantized",
      "float-quantized",
      "int-quantized",
      "naive-quantized",
      "mixed-precision"};
  const std::string format = config.string_or("format", "mixed-precision");
  if (std::ranges::find(kKnown, format) != kKnown.end()) return;
  config.refuse(
      "format",
      fmt::format(
          "is {}; of compressed-tensors, Fettle reads pack-quantized, "
          "float-quantized, int-quantized and naive-quantized",
          format));
}

CodeScheme parse_scheme(const JsonObject& weights) {
  CodeScheme scheme{.block_rows = 1};
  scheme.bits = read_integer(weights, {{"num_bits"}, 8, 1, 8});
  const std::int64_t group = weights.integer_or("group_size", 0);
  const std::string strategy = weights.string_or(
      "strategy", group > 0 ? "group" : (group < 0 ? "channel" : "tensor"));
  if (strategy == "tensor") {
    scheme.block_rows = 0;
  } else if (strategy == "group") {
    scheme.block_cols = read_integer(weights, {{"group_size"}, {}});
  } else if (strategy == "block") {
    read_block(weights, "block_structure", scheme);
  } else if (strategy != "channel") {
    weights.refuse(
        "strategy",
        fmt::format(
            "is {}; Fettle reads tensor, channel, group and block", strategy));
  }
  return scheme;
}

StoredSource parse_compressed(const JsonObject& config) {
  check_compressed_format(config);
  StoredSource source{.method = SourceMethod::kCompressedTensors};
  const JsonObject groups = config.object("config_groups");
  for (const auto& [name, unused] : groups.json().items()) {
    const JsonObject group = groups.object(name);
    check_compressed_format(group);
    if (!group.has("weights")) continue;
    source.schemes.push_back(parse_scheme(group.object("weights")));
  }
  if (config.has("sparsity_config")) {
    const JsonObject sparsity = config.object("sparsity_config");
    const std::string format = sparsity.string_or("format", "dense");
    if (format != "dense") {
      sparsity.refuse("format", "is " + format + "; Fettle reads dense");
    }
  }
  if (config.has("transform_config") &&
      !config.at("transform_config").empty()) {
    config.refuse(
        "transform_config", "turns weights, which Fettle does not undo");
  }
  return source;
}

// -1: one group a row.
std::int64_t read_group(const JsonObject& config) {
  const IntegerKey key{{"group_size", "q_group_size"}, 128, -1};
  const std::int64_t size = read_integer(config, key);
  if (size == 0) config.refuse("group_size", "is 0, expected -1 or more");
  return std::max<std::int64_t>(size, 0);
}

StoredSource parse_gptq(const JsonObject& config) {
  const std::string format = config.string_or("checkpoint_format", "gptq");
  if (format != "gptq" && format != "gptq_v2") {
    config.refuse(
        "checkpoint_format",
        fmt::format("is {}; Fettle reads gptq and gptq_v2", format));
  }
  const std::int64_t bits = read_integer(config, {{"bits"}, 4, 2, 8});
  return {
      .method = SourceMethod::kGptq,
      .schemes = {{1, read_group(config), bits}},
      .zeros_less_one = format == "gptq"};
}

StoredSource parse_awq(const JsonObject& config) {
  const std::string version = config.string_or("version", "gemm");
  if (version != "gemm" && version != "GEMM") {
    config.refuse("version", fmt::format("is {}; Fettle reads gemm", version));
  }
  const std::int64_t bits = read_integer(config, {{"bits", "w_bit"}, 4, 4, 4});
  return {
      .method = SourceMethod::kAwq, .schemes = {{1, read_group(config), bits}}};
}

}  // namespace

StoredSource parse_stored_source(const JsonObject& config) {
  if (!config.has(kQuantization)) {
    const bool nested = config.has("text_config");
    return nested ? parse_stored_source(config.object("text_config"))
                  : StoredSource{};
  }
  const JsonObject quantization = config.object(kQuantization);
  const std::string method = quantization.string_or("quant_method", "");
  if (method == "fettle") {
    require_format(quantization);
    return {.method = SourceMethod::kFettle};
  }
  if (method == "fp8") return parse_fp8(quantization);
  if (method == "compressed-tensors") return parse_compressed(quantization);
  if (method == "gptq") return parse_gptq(quantization);
  if (method == "awq") return parse_awq(quantization);
  if (method == "mxfp4") {
    return {.method = SourceMethod::kMxfp4, .schemes = {{1, 32, 4}}};
  }
  quantization.refuse(
      "quant_method",
      fmt::format(
          "is '{}'; Fettle reads fp8, compressed-tensors, gptq, awq and mxfp4, "
          "and what it packed itself",
          method));
}

}  // namespace fettle::model
