// SPDX-License-Identifier: Apache-2.0
// GGUF files of packed and plain models; tests/hf reads them with the gguf
// package and llama.cpp.
#include "export/gguf/gguf_export.h"

#include <array>
#include <catch2/catch.hpp>
#include <fstream>
#include <map>

#include "core/error.h"
#include "export/gguf/gguf_blocks.h"
#include "export/gguf/gguf_file.h"
#include "packed_tiny_model.h"

namespace fettle::exporter {
namespace {

using Catch::Matchers::Contains;
using model::Role;
using testing::grids;
using testing::ints;
using testing::PackedTinyModel;
using testing::TemporaryFolder;
using testing::TinyModelOptions;
using testing::trits;
using testing::wide;

ExportResult run_gguf(
    const PackedTinyModel& tiny,
    ExportOptions options,
    const TemporaryFolder& out) {
  options.format = Format::kGguf;
  const model::ModelReader reader(tiny.path());
  return export_model(reader, options, out.path());
}

struct Read {
  std::map<std::string, GgufValue> keys;
  std::map<std::string, GgufTensor> tensors;

  explicit Read(const TemporaryFolder& out) {
    const auto file = io::open_file(out.path() / kGgufFile);
    const GgufHeader header = read_gguf(*file);
    keys.insert(header.keys.begin(), header.keys.end());
    for (const GgufTensor& tensor : header.tensors) {
      tensors[tensor.name] = tensor;
    }
    REQUIRE(tensors.size() == header.tensors.size());
  }

  std::uint32_t number(const std::string& key) const {
    return std::get<std::uint32_t>(keys.at(key));
  }
  std::string type(const std::string& name) const {
    return std::string(
        block_name(static_cast<BlockType>(tensors.at(name).type)));
  }
  std::int64_t bytes() const {
    std::int64_t bytes = 0;
    for (const auto& [key, tensor] : tensors) {
      std::int64_t rows = 1;
      for (std::size_t d = 1; d < tensor.sizes.size(); ++d) {
        rows *= tensor.sizes[d];
      }
      bytes += rows *
               row_bytes(static_cast<BlockType>(tensor.type), tensor.sizes[0]);
    }
    return bytes;
  }
};

const auto kFamilies = std::to_array<std::string>(
    {"qwen3_moe",     "qwen2_moe",        "mixtral",
     "olmoe",         "deepseek_v2",      "deepseek_v3",
     "glm4_moe_lite", "glm4_moe",         "dots1",
     "ernie4_5_moe",  "minimax_m2",       "mellum",
     "granitemoe",    "granitemoeshared", "granitemoehybrid",
     "afmoe",         "gemma4_text",      "lfm2_moe",
     "qwen3_next",    "qwen3_5_moe_text"});

TEST_CASE("GGUF files of all families hold every value") {
  const std::string family = GENERATE(from_range(kFamilies));
  const bool packed = GENERATE(true, false);
  const PackedTinyModel tiny(
      wide(family),
      packed ? grids(ints(4, 32), ints(8, 32))
             : grids(std::nullopt, std::nullopt));
  const TemporaryFolder out;
  const ExportResult result = run_gguf(tiny, {}, out);
  REQUIRE(result.max_error == 0);
  REQUIRE(result.rounded == 0);
  const Read file(out);
  const std::string name =
      std::get<std::string>(file.keys.at("general.architecture"));
  REQUIRE(file.number(name + ".block_count") == 2);
  REQUIRE(file.number(name + ".embedding_length") == 64);
  REQUIRE(file.number(name + ".expert_count") == 4);
  REQUIRE(file.number(name + ".expert_used_count") == 2);
  REQUIRE(file.number("tokenizer.ggml.eos_token_id") == 2);
  REQUIRE(file.number("general.file_type") == (packed ? 2 : 0));
  REQUIRE(
      file.tensors.at("blk.1.ffn_down_exps.weight").sizes ==
      std::vector<std::int64_t>{32, 64, 4});
  REQUIRE(file.type("blk.1.ffn_down_exps.weight") == (packed ? "Q4_0" : "F32"));
  REQUIRE(file.type("blk.1.attn_output.weight") == (packed ? "Q8_0" : "F32"));
  REQUIRE(file.type("blk.1.ffn_gate_inp.weight") == "F32");
  REQUIRE(file.tensors.at("blk.0.attn_norm.weight").sizes.size() == 1);
  const bool renamed = family == "glm4_moe" || family == "afmoe" ||
                       family == "gemma4_text" || family == "qwen3_next" ||
                       family == "qwen3_5_moe_text";
  REQUIRE(file.tensors.contains("blk.1.post_attention_norm.weight") == renamed);
  if (tiny.config().router.correction_bias) {
    REQUIRE(
        file.tensors.at("blk.1.exp_probs_b.bias").sizes ==
        std::vector<std::int64_t>{4});
    REQUIRE(file.type("blk.1.exp_probs_b.bias") == "F32");
  }
  REQUIRE(file.bytes() == result.after.bytes);
}

TEST_CASE("A GGUF file of layers of one mixer or MLP holds every value") {
  const bool packed = GENERATE(true, false);
  const PackedTinyModel tiny(
      wide(
          "nemotron_h",
          {{"num_hidden_layers", 3},
           {"time_step_min", 0.0},
           {"layers_block_type",
            {"linear_attention", "moe", "full_attention"}}}),
      packed ? grids(ints(4, 32), ints(8, 32))
             : grids(std::nullopt, std::nullopt));
  const TemporaryFolder out;
  const ExportResult result = run_gguf(tiny, {}, out);
  REQUIRE(result.max_error == 0);
  REQUIRE(result.rounded == 0);
  const Read file(out);
  using Sizes = std::vector<std::int64_t>;
  REQUIRE(
      file.tensors.at("blk.1.ffn_up_exps.weight").sizes == Sizes{64, 32, 4});
  REQUIRE(file.type("blk.1.ffn_up_exps.weight") == (packed ? "Q4_0" : "F32"));
  REQUIRE_FALSE(file.tensors.contains("blk.1.ffn_gate_exps.weight"));
  REQUIRE(file.tensors.at("blk.1.ffn_up_shexp.weight").sizes == Sizes{64, 64});
  for (const char* const norm :
       {"blk.0.attn_norm.weight", "blk.1.attn_norm.weight"}) {
    REQUIRE(file.tensors.at(norm).sizes == Sizes{64});
  }
  REQUIRE_FALSE(file.tensors.contains("blk.1.ffn_norm.weight"));
  REQUIRE(file.tensors.at("blk.0.ssm_norm.weight").sizes == Sizes{64, 2});
  REQUIRE(file.type("blk.2.attn_output.weight") == (packed ? "Q8_0" : "F32"));
  REQUIRE(file.bytes() == result.after.bytes);
}

TEST_CASE("Factors and kinds of layers are told by keys") {
  const TemporaryFolder out, other;
  run_gguf(
      PackedTinyModel(
          wide(
              "granitemoeshared",
              {{"residual_multiplier", 0.5},
               {"embedding_multiplier", 12},
               {"attention_multiplier", 0.25},
               {"logits_scaling", 3.0}}),
          grids(std::nullopt, std::nullopt)),
      {},
      out);
  const Read granite(out);
  const auto number = [](const Read& file, const std::string& key) {
    return std::get<float>(file.keys.at(key));
  };
  CHECK(number(granite, "granitemoe.residual_scale") == 0.5f);
  CHECK(number(granite, "granitemoe.embedding_scale") == 12.0f);
  CHECK(number(granite, "granitemoe.attention.scale") == 0.25f);
  CHECK(number(granite, "granitemoe.logit_scale") == 3.0f);
  CHECK(granite.number("granitemoe.expert_shared_feed_forward_length") == 5);

  run_gguf(
      PackedTinyModel(
          wide("gemma4_text", {{"final_logit_softcapping", 30.0}}),
          grids(std::nullopt, std::nullopt)),
      {},
      other);
  const Read gemma(other);
  CHECK(number(gemma, "gemma4.final_logit_softcapping") == 30.0f);
  CHECK(number(gemma, "gemma4.rope.freq_base") == 1e6f);
  CHECK(number(gemma, "gemma4.rope.freq_base_swa") == 1e4f);
  CHECK(gemma.number("gemma4.attention.key_length") == 64);
  CHECK(gemma.number("gemma4.attention.key_length_swa") == 32);
  CHECK(gemma.number("gemma4.attention.sliding_window") == 512);
  CHECK(gemma.number("gemma4.feed_forward_length") == 32);
  using Flags = std::vector<bool>;
  CHECK(
      std::get<Flags>(gemma.keys.at(
          "gemma4.attention.sliding_window_pattern")) == Flags{true, false});
  using Counts = std::vector<std::int32_t>;
  CHECK(
      std::get<Counts>(gemma.keys.at("gemma4.attention.head_count_kv")) ==
      Counts{2, 1});
  const GgufTensor& freqs = gemma.tensors.at("rope_freqs.weight");
  CHECK(freqs.sizes == std::vector<std::int64_t>{32});
  const auto file = io::open_file(other.path() / kGgufFile);
  std::vector<float> divisors(32);
  file->read_at(
      read_gguf(*file).data_begin + freqs.begin,
      std::as_writable_bytes(std::span(divisors)));
  CHECK(divisors[7] == 1.0f);  // a quarter of 64, in pairs
  CHECK(divisors[8] == 1e30f);
  CHECK_FALSE(gemma.tensors.contains("blk.1.attn_v.weight"));
  CHECK(gemma.tensors.contains("blk.0.attn_v.weight"));
  CHECK(gemma.tensors.contains("blk.1.ffn_down_exps.scale"));
  CHECK(gemma.tensors.contains("blk.1.layer_output_scale.weight"));
}

TEST_CASE("What llama.cpp computes otherwise in these families is refused") {
  struct Otherwise {
    std::string family;
    Json changes;
    std::string text;
  };
  const Json scaled = {
      {"rope_type", "linear"}, {"rope_theta", 1e4}, {"factor", 2.0}};
  const Json plain = {{"rope_type", "default"}, {"rope_theta", 1e4}};
  for (const auto& [family, changes, text] : std::vector<Otherwise>{
           {"afmoe", {{"mup_enabled", false}}, "'mup_enabled' is false"},
           {"afmoe",
            {{"global_attn_every_n_layers", 2}},
            "not each fourth layer"},
           {"afmoe",
            {{"rope_parameters", scaled}},
            "layers with a window have rope scaling"},
           {"gemma4_text",
            {{"layer_types", {"full_attention", "full_attention"}}},
            "no layer has a window"},
           {"gemma4_text",
            {{"rope_parameters",
              {{"sliding_attention", scaled}, {"full_attention", plain}}}},
            "layers with a window have rope scaling"},
           {"gemma4_text",
            {{"rope_parameters",
              {{"sliding_attention", plain}, {"full_attention", scaled}}}},
            "full layers have rope scaling"},
           {"gemma4_text",
            {{"hidden_activation", "silu"}},
            "'hidden_activation' is not gelu_pytorch_tanh"}}) {
    INFO(family << " " << changes.dump());
    const PackedTinyModel tiny(
        wide(family, changes), grids(std::nullopt, std::nullopt));
    const TemporaryFolder out;
    CHECK_THROWS_WITH(run_gguf(tiny, {}, out), Contains(text));
  }
}

TEST_CASE("A tied head is written where the architecture demands one") {
  const std::string family = GENERATE("qwen3_moe", "qwen2_moe", "olmoe");
  const PackedTinyModel tiny(
      wide(family, {{"tie_word_embeddings", true}}),
      grids(ints(4, 32), std::nullopt));
  const TemporaryFolder out;
  run_gguf(tiny, {}, out);
  const Read file(out);
  REQUIRE(file.tensors.contains("output.weight") == (family != "qwen3_moe"));
}

TEST_CASE("Mixtral's queries and keys have rotary pairs side by side") {
  TinyModelOptions options = wide("mixtral");
  options.edit = [](const model::WeightId& id, const at::Tensor& tensor) {
    if (id.role != Role::kQProj) return tensor;
    return at::arange(64, at::kFloat).unsqueeze(1).expand({64, 64});
  };
  const PackedTinyModel tiny(options, grids(ints(4, 32), std::nullopt));
  const TemporaryFolder out;
  run_gguf(tiny, {}, out);
  const Read file(out);
  const auto in = io::open_file(out.path() / kGgufFile);
  const GgufTensor& q = file.tensors.at("blk.0.attn_q.weight");
  std::vector<float> values(64 * 64);
  in->read_at(
      read_gguf(*in).data_begin + q.begin,
      std::as_writable_bytes(std::span(values)));
  // Two heads of 32.
  for (int i = 0; i < 16; ++i) {
    REQUIRE(values[64 * (2 * i)] == static_cast<float>(i));
    REQUIRE(values[64 * (2 * i + 1)] == static_cast<float>(i + 16));
    REQUIRE(values[64 * (32 + 2 * i)] == static_cast<float>(32 + i));
  }
}

TEST_CASE("Plain weights keep their type, and vectors are fp32") {
  TinyModelOptions options = wide("qwen3_moe", {{"dtype", "bfloat16"}});
  options.type = at::kBFloat16;
  const PackedTinyModel tiny(options, grids(std::nullopt, std::nullopt));
  const TemporaryFolder out, half;
  REQUIRE(run_gguf(tiny, {}, out).max_error == 0);
  const Read file(out);
  REQUIRE(file.type("blk.0.ffn_up_exps.weight") == "BF16");
  REQUIRE(file.type("token_embd.weight") == "BF16");
  REQUIRE(file.type("output_norm.weight") == "F32");
  REQUIRE(file.number("general.file_type") == 32);
  const ExportResult narrowed = run_gguf(tiny, {.dtype = at::kHalf}, half);
  REQUIRE(narrowed.narrowed);
  REQUIRE(Read(half).type("blk.0.ffn_up_exps.weight") == "F16");
}

TEST_CASE("Experts are filled up to the width of fewest bytes") {
  TinyModelOptions options = wide("qwen3_moe", {{"hidden_size", 256}});
  options.widths = {{250, 7, 0, 33}, {1, 2, 3, 4}};
  SECTION("to blocks of 256 where that is less") {
    const PackedTinyModel tiny(options, grids(trits(512), ints(8, 256)));
    const TemporaryFolder out;
    const ExportResult result = run_gguf(tiny, {}, out);
    REQUIRE(result.max_error == 0);
    REQUIRE(result.after.max_width == 256);
    const Read file(out);
    REQUIRE(file.type("blk.0.ffn_down_exps.weight") == "TQ2_0");
    REQUIRE(file.type("blk.1.ffn_up_exps.weight") == "TQ2_0");
  }
  SECTION("else to blocks of 32") {
    options.widths[0][0] = 129;
    const PackedTinyModel tiny(options, grids(trits(512), ints(8, 256)));
    const TemporaryFolder out;
    REQUIRE(run_gguf(tiny, {}, out).after.max_width == 160);
    REQUIRE(Read(out).type("blk.0.ffn_down_exps.weight") == "Q4_0");
    REQUIRE(Read(out).type("blk.0.ffn_gate_exps.weight") == "TQ2_0");
  }
  SECTION("or as they are where all is plain") {
    const PackedTinyModel tiny(options, grids(std::nullopt, ints(8, 256)));
    const TemporaryFolder out;
    REQUIRE(run_gguf(tiny, {}, out).after.max_width == 250);
  }
}

TEST_CASE("DeepSeek's shared and dense MLPs are filled up to blocks") {
  TinyModelOptions options = wide(
      "deepseek_v2",
      {{"moe_intermediate_size", 40}, {"intermediate_size", 50}});
  const PackedTinyModel tiny(options, grids(ints(4, 32), ints(8, 32)));
  const TemporaryFolder out;
  REQUIRE(run_gguf(tiny, {}, out).max_error == 0);
  const Read file(out);
  REQUIRE(file.number("deepseek2.expert_feed_forward_length") == 64);
  REQUIRE(file.number("deepseek2.expert_shared_count") == 2);
  REQUIRE(file.number("deepseek2.feed_forward_length") == 64);
  REQUIRE(file.number("deepseek2.leading_dense_block_count") == 1);
  REQUIRE(
      file.tensors.at("blk.1.ffn_up_shexp.weight").sizes ==
      std::vector<std::int64_t>{64, 128});
}

void require_refusal(const PackedTinyModel& tiny, const std::string& message) {
  const TemporaryFolder refused;
  REQUIRE_THROWS_AS(run_gguf(tiny, {}, refused), UserError);
  REQUIRE_THROWS_WITH(run_gguf(tiny, {}, refused), Contains(message));
}

TEST_CASE("What no block holds is refused, or written as the nearest") {
  const auto check = [](const PackedTinyModel& tiny,
                        const std::string& message) {
    require_refusal(tiny, message);
    const TemporaryFolder out;
    const ExportResult result = run_gguf(tiny, {.nearest = true}, out);
    REQUIRE(result.rounded > 0);
    REQUIRE(result.max_error > 0);
    REQUIRE(result.max_error < 1.0 / 250);
  };
  SECTION("groups") {
    check(
        PackedTinyModel(wide("qwen3_moe"), grids(ints(4, 16), std::nullopt)),
        "is int4 in groups of 16, which GGUF's blocks of 32 would straddle");
  }
  SECTION("range") {
    check(
        PackedTinyModel(
            wide("qwen3_moe"), grids(ints(8, 32, false), std::nullopt)),
        "is int8 with zeros, whose range no type of GGUF holds");
  }
  SECTION("rows") {
    require_refusal(
        PackedTinyModel(
            wide("qwen3_moe", {{"hidden_size", 48}, {"head_dim", 16}}),
            grids(std::nullopt, ints(8, 16))),
        "in rows of 48 weights, no whole number of GGUF's blocks");
  }
  SECTION("some experts plain") {
    check(
        PackedTinyModel(
            wide("qwen3_moe"),
            [](const model::WeightId& id) {
              return id.expert == 2 ? std::nullopt
                                    : grids(ints(4, 32), std::nullopt)(id);
            }),
        "experts.2.gate_proj.weight: is plain where other experts are packed");
  }
  SECTION("scales") {
    TinyModelOptions options = wide("qwen3_moe");
    options.edit = [](const model::WeightId& id, const at::Tensor& tensor) {
      return id.role == Role::kExpertUp ? tensor * 1e-7 : tensor;
    };
    require_refusal(
        PackedTinyModel(options, grids(ints(4, 32), std::nullopt)),
        "has scales that the 16 bits of GGUF's blocks can't hold");
  }
}

TEST_CASE("A changed block is found") {
  const PackedTinyModel tiny(wide("olmoe"), grids(ints(4, 32), ints(4, 32)));
  const TemporaryFolder out;
  run_gguf(tiny, {}, out);
  const model::ModelReader reader(tiny.path());
  const ExportOptions options{.format = Format::kGguf};
  REQUIRE_NOTHROW(check_gguf(reader, options, out.path()));
  std::uint64_t begin = 0;
  {
    const auto file = io::open_file(out.path() / kGgufFile);
    begin = read_gguf(*file).data_begin +
            Read(out).tensors.at("blk.1.ffn_up_exps.weight").begin;
  }
  std::fstream file(
      out.path() / kGgufFile, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(begin + 2));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(begin + 2));
  file.put(static_cast<char>(byte ^ 1));
  file.close();
  REQUIRE_THROWS_WITH(
      check_gguf(reader, options, out.path()),
      Contains("blk.1.ffn_up_exps.weight read back differs"));
}

}  // namespace
}  // namespace fettle::exporter
