// SPDX-License-Identifier: Apache-2.0
#include "tune/options/tune_options.h"

#include <catch2/catch.hpp>
#include <functional>

#include "core/error.h"
#include "tiny_model.h"
#include "tune/method/method.h"
#include "tune/method/option_checks.h"
#include "tune/options/default_rates.h"

using namespace fettle;
using namespace fettle::tune;
using Catch::Contains;

namespace {

model::ModelConfig tiny_config() {
  const testing::TemporaryFolder folder;
  testing::write_tiny_model(folder.path());
  return model::read_model_config(folder.path().string());
}

TuneOptions fitting() {
  TuneOptions options;
  options.seq_len = 16;
  return options;
}

using Change = std::function<void(TuneOptions&)>;

// Each change is refused with the name of its option.
void check_refusals(
    const std::vector<std::pair<std::string, Change>>& changes) {
  const model::ModelConfig config = tiny_config();
  for (const auto& [name, change] : changes) {
    TuneOptions options = fitting();
    change(options);
    CHECK_THROWS_WITH(
        check_options(options, config), Contains("[tune] " + name + ":"));
  }
}

}  // namespace

TEST_CASE("an impossible option is refused by name") {
  CHECK_NOTHROW(check_options(fitting(), tiny_config()));
  check_refusals(
      {{"method", [](auto& o) { o.method = "magic"; }},
       {"method", [](auto& o) { o.method = ""; }},
       {"method", [](auto& o) { o.method = "usaf+magic"; }},
       {"method", [](auto& o) { o.method = "usaf+usaf"; }},
       {"method", [](auto& o) { o.method = "usaf+smt"; }},
       {"router", [](auto& o) { o.router = "warm"; }},
       {"steps", [](auto& o) { o.steps = 0; }},
       {"patience", [](auto& o) { o.patience = -1; }},
       {"keep_best", [](auto& o) { o.keep_best = "maybe"; }},
       {"seq_len", [](auto& o) { o.seq_len = 1; }},
       {"seq_len", [](auto& o) { o.seq_len = 65; }},
       {"tokens_per_step", [](auto& o) { o.tokens_per_step = 15; }},
       {"warmup", [](auto& o) { o.warmup = -1; }},
       {"warmup", [](auto& o) { o.warmup = 1.5; }},
       {"max_bad_steps", [](auto& o) { o.max_bad_steps = 0; }},
       {"save_every", [](auto& o) { o.save_every = -1; }},
       {"eval_every", [](auto& o) { o.eval_every = -1; }},
       {"lr", [](auto& o) { o.lr = -1e-4; }},
       {"lr", [](auto& o) { o.lr = 1.0 / 0.0; }},
       {"min_lr_ratio", [](auto& o) { o.min_lr_ratio = 1.5; }},
       {"weight_decay", [](auto& o) { o.weight_decay = -1.0; }},
       {"beta1", [](auto& o) { o.beta1 = 1.0; }},
       {"beta2", [](auto& o) { o.beta2 = -0.1; }},
       {"epsilon", [](auto& o) { o.epsilon = 0.0; }},
       {"clip_norm", [](auto& o) { o.clip_norm = -1.0; }},
       {"router_lr", [](auto& o) { o.router_lr = -1.0; }},
       {"router_warmup", [](auto& o) { o.router_warmup = -1; }},
       // Routers that never train are not to be counted as trained.
       {"router_warmup", [](auto& o) { o.steps = o.router_warmup = 20; }}});
}

TEST_CASE("a warm-up is a share of the run, or steps") {
  CHECK(warmup_steps(0.05, 200) == 10);
  CHECK(warmup_steps(0.05, 20) == 1);
  CHECK(warmup_steps(0.05, 4) == 0);
  CHECK(warmup_steps(0.0, 200) == 0);
  CHECK(warmup_steps(1.0, 200) == 1);
  CHECK(warmup_steps(20.0, 200) == 20);
  TuneOptions options = fitting();
  options.steps = options.router_warmup = 20;
  options.router = "frozen";
  CHECK_NOTHROW(check_options(options, tiny_config()));
  options.router = "auto";
  options.method = "router";  // there is nothing to wait for
  CHECK_NOTHROW(check_options(options, tiny_config()));
}

TEST_CASE("an impossible option of a method is refused by name") {
  check_refusals(
      {{"method", [](auto& o) { o.method = "usaf+esft"; }},
       {"frac", [](auto& o) { o.method = "esft", o.frac = 0.5; }},
       {"esft_share", [](auto& o) { o.esft_share = 0.5; }},
       {"attention_frac", [](auto& o) { o.attention_frac = 0.5; }},
       {"attention_frac",
        [](auto& o) { o.method = "smt", o.attention_frac = 1.5; }},
       {"block", [](auto& o) { o.unit = "block", o.block = "16"; }},
       {"block", [](auto& o) { o.unit = "block", o.block = "16x"; }},
       {"block", [](auto& o) { o.unit = "block", o.block = "0x4"; }},
       {"block", [](auto& o) { o.method = "smt", o.block = "4x-4"; }},
       {"unit", [](auto& o) { o.unit = "element", o.scope = "global"; }},
       {"unit",
        [](auto& o) {
          o.unit = "element", o.scope = "layer", o.reselect_every = 5;
        }},
       {"unit", [](auto& o) { o.unit = "matrix"; }},
       {"esft_share", [](auto& o) { o.method = "esft", o.esft_share = 0.0; }},
       {"esft_by", [](auto& o) { o.method = "esft", o.esft_by = "luck"; }},
       {"frac", [](auto& o) { o.frac = 0.0; }},
       {"frac", [](auto& o) { o.frac = 1.1; }},
       {"scope", [](auto& o) { o.scope = "expert"; }},
       {"score_sequences", [](auto& o) { o.score_sequences = 0; }},
       {"reselect_every", [](auto& o) { o.reselect_every = -1; }},
       {"drop_fraction", [](auto& o) { o.drop_fraction = 2.0; }},
       {"drop_by", [](auto& o) { o.drop_by = "luck"; }},
       {"rank", [](auto& o) { o.method = "lora", o.rank = 17; }}});
  TuneOptions options = fitting();
  options.unit = "element";
  CHECK_NOTHROW(check_options(options, tiny_config()));
  options.method = "lora";
  options.unit = "neuron";
  options.rank = 16;  // as wide as the model
  CHECK_NOTHROW(check_options(options, tiny_config()));
}

TEST_CASE("a method has its own rate unless one is named") {
  TuneOptions options = fitting();
  options.method = "usaf+lora";
  options.lora_targets = "attention";
  CHECK(peak_rate(options, "usaf") == default_rate("usaf"));
  CHECK(peak_rate(options, "router") == kRouterRateBeside);
  CHECK(
      peak_rates(options) == Json{
                                 {"usaf", default_rate("usaf")},
                                 {"lora", default_rate("lora")},
                                 {"router", kRouterRateBeside}});
  options.method = "router";
  CHECK(peak_rate(options, "router") == default_rate("router"));
  options.method = "usaf+lora";
  options.lr = 0.5;
  options.router_lr = 0.25;
  CHECK(
      peak_rates(options) ==
      Json{{"usaf", 0.5}, {"lora", 0.5}, {"router", 0.25}});
  for (const Method& method : methods()) {
    INFO(method.name);
    const bool has = default_rate(method.name) > 0.0;
    CHECK(has == (std::string(method.name) != "condenser"));
    CHECK((default_rates_text().find(method.name) != std::string::npos) == has);
  }
}

TEST_CASE("the length of sequences bends to the model unless it is named") {
  model::ModelConfig config = tiny_config();  // 64 positions
  CHECK(settled(TuneOptions{}, config).seq_len == 64);
  CHECK(settled(fitting(), config).seq_len == 16);
  TuneOptions options;
  options.tokens_per_step = 24;
  CHECK(settled(options, config).seq_len == 24);
  config.max_position = 0;
  CHECK(settled(TuneOptions{}, config).seq_len == 2048);
}

TEST_CASE("an unknown method is answered with those that exist") {
  TuneOptions options = fitting();
  options.method = "mora";
  CHECK_THROWS_WITH(
      check_options(options, tiny_config()),
      Contains("usaf") && Contains("mora"));
}

TEST_CASE("a pattern that names no weight is refused") {
  check_refusals(
      {{"match", [](auto& o) { o.method = "full", o.match = "lm_tail"; }},
       {"match",
        [](auto& o) {
          o.method = "full", o.match = "lm_head", o.embeddings = "frozen";
        }},
       {"embeddings", [](auto& o) { o.method = "full", o.embeddings = "no"; }},
       {"embeddings", [](auto& o) { o.embeddings = "frozen"; }},
       {"match", [](auto& o) { o.method = "full", o.match = "("; }},
       {"match", [](auto& o) { o.match = "mlp"; }},
       {"states", [](auto& o) { o.method = "full", o.states = "cloud"; }},
       {"method", [](auto& o) { o.method = "full+usaf"; }},
       {"method", [](auto& o) { o.method = "full+router"; }}});
  TuneOptions options = fitting();
  options.method = "full+usaf";
  options.match = "self_attn";
  CHECK_NOTHROW(check_options(options, tiny_config()));
}

TEST_CASE("methods that train different weights are joined") {
  TuneOptions options = fitting();
  options.method = "usaf+router";
  CHECK_NOTHROW(check_options(options, tiny_config()));
  options.method = "esft+router";
  CHECK_NOTHROW(check_options(options, tiny_config()));
}

TEST_CASE("a model without experts has nothing to tune") {
  model::ModelConfig config = tiny_config();
  for (model::LayerConfig& layer : config.layers) layer.expert_widths.clear();
  CHECK_THROWS_WITH(
      check_options(fitting(), config), Contains("a model with experts"));
}

TEST_CASE("every option is recorded but whether it is a resume") {
  const Json json = to_json(TuneOptions{});
  CHECK(json.contains("seed"));
  CHECK_FALSE(json.contains("resume"));
  CHECK(json["lr"] == 0.0);
}

TEST_CASE("the memory of the parts counts 16 bytes a weight and more") {
  const model::ModelConfig config = tiny_config();
  TuneOptions options = fitting();
  options.frac = 0.25;
  options.router = "frozen";
  const std::int64_t weights = 8 * 3 * testing::kHidden;
  const auto bytes_of = [&] {
    const PartBytes bytes = part_bytes(options, config, at::kCPU);
    CHECK(bytes.device == 0.0);
    return bytes.ram;
  };
  const double bytes = bytes_of();
  CHECK(bytes >= 16 * weights);
  // In each thread, an expert of width 6 while its neurons are scored.
  const std::int64_t scoring = at::get_num_threads() * 8 * 6 * testing::kHidden;
  // Scores and ranking of 32 neurons.
  CHECK(bytes <= 41 * weights + scoring + 32 * 32);
  options.router = "auto";
  CHECK(bytes_of() == bytes + 16 * 8 * testing::kHidden);
  options.reselect_every = 10;
  CHECK(bytes_of() > bytes);
}
