// SPDX-License-Identifier: Apache-2.0
// What a candidate takes is what the stages, loaders and exporters count.
#include "chain/candidate.h"

#include <catch2/catch.hpp>
#include <map>

#include "../artifact/tiny_model.h"
#include "../export/packed_tiny_model.h"
#include "artifact/model_writer.h"
#include "export/target.h"
#include "model/weights/loaded_bytes.h"
#include "planned_folder.h"

namespace fettle::chain {
namespace {

using testing::PlannedFolder;
using Headers = std::map<std::string, model::PackedHeader>;

// The source's configuration with experts of one width.
model::ModelConfig with_width(const FitSource& source, std::int64_t width) {
  model::ModelConfig config = source.config();
  for (model::LayerConfig& layer : config.layers) {
    for (std::int64_t& one : layer.expert_widths) one = width;
  }
  return config;
}

// What an export of such a model counts; int8 beside the experts.
std::int64_t exported(
    const FitSource& source, const Engine& engine, const Candidate& made) {
  const model::ModelConfig config = with_width(source, made.width());
  const SchemeRow& row = made.cut().scheme;
  const bool keeps = row.scheme == "keep";
  Headers headers;
  const exporter::SourceForms forms{
      config,
      "planned",
      [](const model::WeightId&) { return at::kBFloat16; },
      [&](const model::WeightId& id) -> const model::PackedHeader* {
        if (keeps || id.layer < 0 || !quant::part_of(id.role)) return nullptr;
        const auto shape = model::weight_shape(config, id);
        const bool expert = model::kExpertRoles.has(id.role);
        const auto scheme = quant::parse_scheme(expert ? row.scheme : "int8");
        auto& header = headers[model::weight_name(config, id)];
        header = quant::planned_header(
            scheme,
            {.group = row.group, .symmetric = true},
            shape[0],
            shape[1]);
        return &header;
      }};
  return exporter::exported_bytes(
      forms,
      {.format = exporter::format_for(engine.target, !keeps),
       .nearest_shape = true});
}

TEST_CASE("A folder's bytes are those that an export of it counts") {
  const std::string family = GENERATE("qwen3_moe", "deepseek_v2", "lfm2_moe");
  const PlannedFolder folder(family);
  const FitSource source(folder.path());
  for (const char* name : {"fettle", "llama.cpp", "transformers"}) {
    const Engine& engine = find_engine(name);
    for (const SchemeRow& row : engine.schemes) {
      for (const double keep : {1.0, 0.5}) {
        const Candidate made(source, engine, {keep, row}, true);
        INFO(family << " " << name << " " << row.label << " " << keep);
        REQUIRE(made.why_not().empty());
        const std::int64_t file = made.footprint(64, 1).file;
        const std::int64_t meant = exported(source, engine, made);
        // Of ragged experts, three more bytes a row of each down projection.
        const bool ragged = engine.storage == Storage::kFettle && keep < 1 &&
                            row.scheme != std::string_view("keep");
        CHECK(file >= meant);
        CHECK(file - meant <= (ragged ? 2 * 8 * 256 * 3 : 0));
      }
    }
  }
}

TEST_CASE("Weights in memory are those that Fettle loads") {
  const PlannedFolder folder("qwen2_moe");
  const FitSource source(folder.path());
  const bool on_card = GENERATE(false, true);
  const at::ScalarType type = on_card ? at::kBFloat16 : at::kFloat;
  const Engine& engine = find_engine("fettle");
  for (const SchemeRow& row : engine.schemes) {
    const Candidate made(source, engine, {0.5, row}, on_card);
    const model::WeightForms forms = [&](const model::WeightId& id) {
      return made.form(id);
    };
    const auto loaded = model::loaded_bytes(made.config(), forms, type);
    std::int64_t sum =
        model::global_bytes(made.config(), forms, type, !on_card).all;
    for (std::size_t k = 0; k < loaded.layers.size(); ++k) {
      sum += source.kinds()[k].count * loaded.layers[k].kept;
    }
    CHECK(made.footprint(64, 1).weights.total() == sum);
  }
}

TEST_CASE("All parts together are the total, and grow with conversations") {
  const PlannedFolder folder("qwen3_moe");
  const FitSource source(folder.path());
  for (const std::string& name : engine_names()) {
    const Engine& engine = find_engine(name);
    const Candidate made(source, engine, {1.0, engine.schemes.back()}, true);
    const Footprint one = made.footprint(512, 1);
    CHECK(
        one.weights.total() + one.state + one.working + one.runtime ==
        one.total);
    CHECK(one.working > 0);
    CHECK(one.least <= one.total);
    const Footprint four = made.footprint(512, 4);
    CHECK(four.state == 4 * one.state);
    CHECK(four.total > one.total);
    CHECK(made.footprint(4096, 1).total > one.total);
  }
}

TEST_CASE("A cut takes its share of every expert, in the engine's units") {
  const PlannedFolder folder("qwen3_moe");
  const FitSource source(folder.path());
  const auto width = [&](const char* engine, double keep) {
    const Engine& found = find_engine(engine);
    return Candidate(source, found, {keep, found.schemes[0]}, true).width();
  };
  CHECK(width("fettle", 1.0) == 512);
  CHECK(width("fettle", 0.3) == 154);
  CHECK(width("llama.cpp", 0.3) == 160);
  CHECK(width("vllm", 0.3) == 128);
  CHECK(width("transformers", 0.01) == 16);
}

TEST_CASE("Engines say what they have no place for") {
  const PlannedFolder odd("qwen3_moe", {{"hidden_size", 48}});
  const FitSource source(odd.path());
  const Engine& llama = find_engine("llama.cpp");
  const Candidate made(source, llama, {1.0, llama.schemes[2]}, true);
  CHECK_THAT(made.why_not(), Catch::Contains("rows of 48 weights"));
  const PlannedFolder stacks("gpt_oss");
  const FitSource other(stacks.path());
  const Engine& vllm = find_engine("vllm");
  CHECK(Candidate(other, vllm, {1.0, vllm.schemes[0]}, true).why_not().empty());
  CHECK_THAT(
      Candidate(other, vllm, {1.0, vllm.schemes[1]}, true).why_not(),
      Catch::Contains("stacks"));
}

TEST_CASE("A plan of every weight takes what the even cut of it takes") {
  const PlannedFolder folder("qwen2_moe");
  const FitSource source(folder.path());
  const Engine& engine = find_engine("fettle");
  const bool on_card = GENERATE(false, true);
  const Candidate even(source, engine, {1.0, engine.schemes[2]}, on_card);
  const Candidate planned(
      source,
      engine,
      {source.config(),
       [&](const model::WeightId& id) -> std::optional<model::PackedHeader> {
         if (!quant::part_of(id.role) || id.layer < 0) return std::nullopt;
         const auto shape = model::weight_shape(source.config(), id);
         const bool expert = model::kExpertRoles.has(id.role);
         return quant::planned_header(
             quant::parse_scheme(expert ? "int4" : "int8"),
             {.group = 128, .symmetric = true},
             shape[0],
             shape[1]);
       }},
      on_card);
  const Footprint a = even.footprint(100, 2);
  const Footprint b = planned.footprint(100, 2);
  CHECK(a.total == b.total);
  CHECK(a.file == b.file);
  CHECK(a.weights.total() == b.weights.total());
  CHECK(a.ram == b.ram);
  CHECK(planned.width() == 512);
}

TEST_CASE("Weights that are packed already keep their codes") {
  using namespace fettle::testing;
  const PackedTinyModel tiny(wide("qwen3_moe"), grids(trits(32), ints(8, 32)));
  const FitSource source(tiny.path());
  for (const char* name : {"fettle", "llama.cpp", "transformers"}) {
    const Engine& engine = find_engine(name);
    const Candidate made(source, engine, {1.0, engine.schemes[0]}, true);
    INFO(name);
    CHECK(
        made.footprint(8, 1).file ==
        exporter::exported_bytes(
            exporter::forms_of(*source.reader()),
            {.format = exporter::format_for(engine.target, true),
             .recode = true,
             .nearest_shape = true}));
  }
}

TEST_CASE("Experts of unequal widths are counted one by one") {
  using fettle::testing::TinyModel;
  const TinyModel tiny({.widths = {{6, 2, 0, 5}, {1, 6, 6, 3}}});
  const FitSource source(tiny.path());
  const Engine& engine = find_engine("fettle");
  const Candidate made(source, engine, {1.0, engine.schemes[0]}, false);
  CHECK(
      made.footprint(8, 1).file ==
      artifact::stored_size(*source.reader()).bytes);
}

}  // namespace
}  // namespace fettle::chain
