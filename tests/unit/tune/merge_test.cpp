// SPDX-License-Identifier: Apache-2.0
#include "tune/adapter/merge_adapter.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "core/error.h"
#include "tiny_model.h"
#include "tune/adapter/adapter.h"
#include "tune/tune.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

struct Fixture {
  TemporaryFolder folder;
  fs::path base = folder.path() / "base";
  fs::path tuned = folder.path() / "tuned";
  SilentReporter reporter;

  Fixture() {
    write_tiny_model(base);
    TuneOptions options;
    options.steps = 4;
    options.tokens_per_step = 64;
    options.seq_len = 16;
    options.lr = 1e-3;
    options.frac = 0.25;
    options.score_sequences = 4;
    options.reselect_every = 2;
    options.router_warmup = 1;
    options.router_lr = 1e-3;
    const auto model = open_model(base);
    text::Mixture train = mixture(16, 1);
    tune::tune(
        {.model = *model,
         .train = train,
         .held_out = {},
         .out = tuned,
         .micro_batch_tokens = 32,
         .sweep = {}},
        options,
        reporter);
  }

  MergeReport merge(const fs::path& out, const MergeOptions& options) {
    const model::ModelReader reader(base);
    return merge_adapter(reader, tuned, options, out, reporter);
  }
  MergeReport merge(const fs::path& out) {
    return merge(out, {.dtype = "float32"});
  }
};

// Logits of the base as it was tuned.
at::Tensor tuned_logits(const fs::path& base, const fs::path& adapter_folder) {
  const auto model = open_model(base);
  const Adapter adapter = Adapter::load(adapter_folder, model->reader());
  model->set_patch([&](std::int64_t layer, model::LayerWeights& weights) {
    adapter.patch(layer, weights);
  });
  return logits_of(*model);
}

}  // namespace

TEST_CASE_METHOD(Fixture, "the merged model computes what the tuned one does") {
  const fs::path out = folder.path() / "merged";
  const MergeReport report = merge(out);
  const at::Tensor expected = tuned_logits(base, tuned);
  CHECK(logits_of(*open_model(out)).equal(expected));
  CHECK_FALSE(logits_of(*open_model(base)).equal(expected));
  for (const char* role :
       {"expert_gate", "expert_up", "expert_down", "router"}) {
    INFO(role);
    CHECK(report.roles.at(role).delta > 0.0);
    CHECK(report.roles.at(role).kept_share() == 1.0);
    CHECK(report.roles.at(role).lost == 0.0);
  }
  CHECK(report.bytes == report.bytes_as_float32);
  CHECK(read_json(out / "config.json", "test")["dtype"] == "float32");
  const Json manifest = read_json(out / "fettle.json", "test");
  CHECK(manifest.dump().find("usaf") != std::string::npos);
}

TEST_CASE_METHOD(Fixture, "untouched tensors keep their type and bytes") {
  const fs::path out = folder.path() / "merged";
  merge(out);
  const model::ModelReader before(base);
  const model::ModelReader after(out);
  const Adapter adapter = Adapter::load(tuned, before);
  int changed = 0;
  for (const model::WeightId& id : model::model_weights(before.config())) {
    INFO(model::weight_name(before.config(), id));
    if (adapter.changes(id)) {
      ++changed;
      CHECK(after.dtype(id) == at::kFloat);
      CHECK_FALSE(after.read(id).equal(before.read(id).to(at::kFloat)));
    } else {
      CHECK(after.dtype(id) == before.dtype(id));
      CHECK(after.read(id).equal(before.read(id)));
    }
  }
  CHECK(changed >= 5);
}

TEST_CASE_METHOD(Fixture, "the base's type is kept and what is lost told") {
  const fs::path out = folder.path() / "merged";
  const MergeReport report = merge(out, {});
  const model::ModelReader before(base);
  const model::ModelReader after(out);
  for (const model::WeightId& id : model::model_weights(before.config())) {
    CHECK(after.dtype(id) == before.dtype(id));
  }
  // Changes of a few thousandths in bf16 weights of a few tenths.
  const DeltaKept& down = report.roles.at("expert_down");
  CHECK(down.lost > 0.01 * down.delta);
  CHECK(report.roles.at("router").lost == 0.0);  // fp32 in this model
  CHECK(report.all.lost > down.lost);
  CHECK(report.all.lost_share() < 1.0);
  CHECK(report.dtype == "bfloat16");
  CHECK(report.bytes < report.bytes_as_float32);
  CHECK_FALSE(read_json(out / "config.json", "test").contains("dtype"));
  CHECK(report.to_json()["expert_down"]["kept_share"] == down.kept_share());
}

TEST_CASE_METHOD(Fixture, "an adapter of another model takes insisting") {
  fs::remove_all(base);
  write_tiny_model(base, 2);
  const fs::path out = folder.path() / "merged";
  CHECK_THROWS_WITH(
      merge(out),
      Contains("the model that was tuned") && Contains("--any-base"));
  CHECK_FALSE(fs::exists(out));
  CHECK_NOTHROW(merge(out, {.any_base = true}));
}

TEST_CASE_METHOD(
    Fixture, "a base whose config is written otherwise is the same") {
  Json json = read_json(base / "config.json", "test");
  json["transformers_version"] = "5.0";
  std::ofstream(base / "config.json") << json.dump(4);
  CHECK_NOTHROW(merge(folder.path() / "merged"));
  json["num_experts_per_tok"] = 1;
  json["fettle"]["layers"][1]["top_k"] = 1;
  std::ofstream(base / "config.json") << json.dump(4);
  CHECK_THROWS_AS(merge(folder.path() / "other"), UserError);
}

TEST_CASE_METHOD(Fixture, "a type that is not known is refused") {
  CHECK_THROWS_WITH(
      merge(folder.path() / "merged", {.dtype = "int4"}),
      Contains("keep or float32"));
}

TEST_CASE_METHOD(Fixture, "an unfit adapter is refused") {
  const auto edit = [&](const std::string& key, const Json& value) {
    Json json = read_json(tuned / "adapter.json", "test");
    json[key] = value;
    std::ofstream(tuned / "adapter.json") << json;
  };
  const auto fails_with = [&](const std::string& text) {
    CHECK_THROWS_WITH(merge(folder.path() / "merged"), Contains(text));
  };
  SECTION("of another format") {
    edit("format", 7);
    fails_with("expected 1, found 7");
  }
  SECTION("with a part from elsewhere") {
    edit("parts", {"neurons", "telepathy"});
    fails_with("telepathy");
  }
  SECTION("with parts that are no list") {
    edit("parts", "neurons");
    fails_with("expected an array");
  }
  SECTION("with parts that are no names") {
    edit("parts", {1});
    fails_with("expected strings");
  }
  SECTION("damaged") {
    edit("checksum", "0");
    fails_with("damaged");
  }
  SECTION("missing") {
    fs::remove(tuned / "adapter.json");
    CHECK_THROWS_AS(merge(folder.path() / "merged"), UserError);
  }
}
