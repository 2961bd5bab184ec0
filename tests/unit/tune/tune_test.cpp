// SPDX-License-Identifier: Apache-2.0
#include "tune/tune.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "artifact/run_state.h"
#include "artifact/tensor_file.h"
#include "core/error.h"
#include "tiny_model.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

TuneOptions small_options() {
  TuneOptions options;
  options.steps = 7;
  options.tokens_per_step = 64;
  options.seq_len = 16;
  options.lr = 0.02;
  options.warmup_steps = 2;
  options.weight_decay = 0.01;
  options.frac = 0.25;
  options.score_sequences = 6;
  options.reselect_every = 3;
  options.router_warmup = 2;
  options.router_lr = 0.01;
  options.save_every = 2;
  options.eval_every = 3;
  return options;
}

// Asks for a stop once a number of steps were made.
class StopAfter : public SilentReporter {
 public:
  explicit StopAfter(int steps) : left_(steps) {}
  std::size_t begin(ProgressTask task) override {
    ++ids_;
    if (task.label == "tune") tune_ = ids_;
    return ids_;
  }
  void advance(std::size_t id, std::uint64_t) override {
    if (id == tune_ && --left_ == 0) flag.store(true);
  }
  std::atomic<bool> flag{false};

 private:
  int left_;
  std::size_t ids_ = 0;
  std::size_t tune_ = 0;
};

struct Fixture {
  TemporaryFolder folder;
  fs::path base = folder.path() / "base";
  fs::path teacher;
  int teachers_opened = 0;
  std::vector<sweep::EvalSet> held_out{{"held", sequences(4, 16)}};

  Fixture() { write_tiny_model(base); }

  TuneResult run(
      const fs::path& out,
      const TuneOptions& options,
      StopAfter& reporter,
      std::uint64_t data_seed = 1) {
    const auto model = open_model(base);
    text::Mixture train = mixture(options.seq_len, data_seed);
    TuneInput input{
        .model = *model,
        .train = train,
        .held_out = held_out,
        .out = out,
        .micro_batch_tokens = 32,
        .sweep = {},
        .stop_requested = &reporter.flag};
    if (!teacher.empty()) {
      input.teacher_fingerprint = teacher.string();
      input.open_teacher = [this] {
        ++teachers_opened;
        return Teacher{open_model(teacher), 48, {}};
      };
    }
    return tune::tune(input, options, reporter);
  }
  TuneResult run(const fs::path& out, const TuneOptions& options) {
    StopAfter never(-1);
    return run(out, options, never);
  }
};

artifact::TensorMap adapter_of(const fs::path& out) {
  return artifact::load_tensors(out / "adapter.safetensors").tensors;
}

std::vector<Json> lines_of(const fs::path& path) {
  std::ifstream file(path);
  std::vector<Json> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(Json::parse(line));
  }
  return lines;
}

void check_equal(const artifact::TensorMap& a, const artifact::TensorMap& b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [name, tensor] : a) {
    INFO(name);
    CHECK(tensor.equal(b.at(name)));
  }
}

}  // namespace

TEST_CASE_METHOD(Fixture, "tuning lowers the loss and records every step") {
  TuneOptions options = small_options();
  options.steps = 30;
  const fs::path out = folder.path() / "out";
  const TuneResult result = run(out, options);
  CHECK(result.steps == 30);
  CHECK_FALSE(result.stopped);
  CHECK(result.tokens == 30 * 64);
  // A quarter of 32 neurons, and two routers of four experts.
  CHECK(result.trainable_weights == 8 * 3 * kHidden + 2 * 4 * kHidden);
  REQUIRE(result.held_out_before.size() == 1);
  CHECK(result.held_out_after[0].nll < result.held_out_before[0].nll - 0.2);

  const auto lines = lines_of(out / "metrics.jsonl");
  REQUIRE(lines.size() == 31);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    CHECK(lines[i]["step"] == i);
    CHECK(lines[i].contains("eval") == (i % 3 == 0));
    if (i > 0) CHECK((lines[i]["lr"]["router"].get<double>() > 0.0) == (i > 2));
  }
  CHECK(lines[1]["lr"]["neurons"] == 0.01);
  CHECK(fs::exists(out / "adapter.json"));
  for (const auto& entry : fs::directory_iterator(out)) {
    CHECK_THAT(entry.path().filename().string(), !Contains("state"));
  }
}

TEST_CASE_METHOD(Fixture, "two runs give the same bits") {
  run(folder.path() / "a", small_options());
  run(folder.path() / "b", small_options());
  check_equal(adapter_of(folder.path() / "a"), adapter_of(folder.path() / "b"));
}

TEST_CASE_METHOD(
    Fixture, "a run resumed after any step ends in the same bits") {
  TuneOptions options = small_options();
  options.method = GENERATE("usaf", "usaf+condenser");
  if (options.method != "usaf") {
    options.condensers = 1;
    options.condenser_after = 4;
  }
  run(folder.path() / "whole", options);
  const auto whole = adapter_of(folder.path() / "whole");
  const auto lines = lines_of(folder.path() / "whole/metrics.jsonl");
  for (const int stop : {1, 3, 6}) {
    const fs::path out = folder.path() / ("stopped" + std::to_string(stop));
    options.resume = false;
    StopAfter reporter(stop);
    const TuneResult first = run(out, options, reporter);
    CHECK(first.stopped);
    CHECK(first.steps == stop);
    CHECK_FALSE(fs::exists(out));
    options.resume = true;
    const TuneResult second = run(out, options);
    CHECK(second.steps == 7);
    check_equal(adapter_of(out), whole);
    const auto resumed = lines_of(out / "metrics.jsonl");
    REQUIRE(resumed.size() == lines.size());
    for (std::size_t i = 1; i < lines.size(); ++i) {
      CHECK(resumed[i]["loss"] == lines[i]["loss"]);
      CHECK(resumed[i]["grad_norm"] == lines[i]["grad_norm"]);
    }
  }
}

TEST_CASE_METHOD(Fixture, "a killed run resumes from its last saved state") {
  run(folder.path() / "whole", small_options());
  const fs::path out = folder.path() / "killed";
  TuneOptions options = small_options();
  StopAfter reporter(5);
  run(out, options, reporter);
  // As if killed after step 5 with the state of step 4: metrics run ahead.
  const fs::path partial = folder.path() / "killed.partial";
  fs::remove_all(partial / "state-00000005");
  StopAfter again(4);
  run(folder.path() / "four", options, again);
  fs::copy(
      folder.path() / "four.partial/state-00000004",
      partial / "state-00000004",
      fs::copy_options::recursive);
  options.resume = true;
  run(out, options);
  check_equal(adapter_of(out), adapter_of(folder.path() / "whole"));
  CHECK(lines_of(out / "metrics.jsonl").size() == 8);
}

TEST_CASE_METHOD(Fixture, "a resume with something else is refused by name") {
  const fs::path out = folder.path() / "out";
  TuneOptions options = small_options();
  StopAfter reporter(1);
  run(out, options, reporter);
  options.resume = true;
  SECTION("another option") {
    options.lr = 0.5;
    CHECK_THROWS_WITH(run(out, options), Contains("options/lr"));
  }
  SECTION("other data") {
    StopAfter never(-1);
    CHECK_THROWS_WITH(run(out, options, never, 2), Contains("data/seed"));
  }
  SECTION("other weights of the data") {
    const auto model = open_model(base);
    text::Mixture train = mixture(options.seq_len, 1, 3.0);
    SilentReporter silent;
    CHECK_THROWS_WITH(
        tune::tune(
            {.model = *model,
             .train = train,
             .held_out = {},
             .out = out,
             .micro_batch_tokens = 32,
             .sweep = {}},
            options,
            silent),
        Contains("data/sources/0/weight"));
  }
  SECTION("another model") {
    fs::remove_all(base);
    write_tiny_model(base, 2);
    CHECK_THROWS_WITH(run(out, options), Contains("model"));
  }
}

TEST_CASE_METHOD(
    Fixture, "a resume without a state starts from the beginning") {
  TuneOptions options = small_options();
  options.resume = true;
  CHECK(run(folder.path() / "out", options).held_out_before.size() == 1);
}

TEST_CASE_METHOD(
    Fixture, "a loss that is not finite stops with the state saved") {
  TuneOptions options = small_options();
  options.lr = 1e37;
  options.warmup_steps = 0;
  options.router = "frozen";
  const fs::path out = folder.path() / "out";
  CHECK_THROWS_WITH(
      run(out, options),
      Contains("step 2") && Contains("in layer 1") && Contains("lower lr"));
  CHECK_FALSE(fs::exists(out));
  const auto state =
      artifact::load_newest_state(folder.path() / "out.partial", "tune");
  REQUIRE(state.has_value());
  CHECK(state->step == 1);
}

TEST_CASE_METHOD(
    Fixture, "a loss that is not finite is also met while choosing anew") {
  TuneOptions options = small_options();
  options.lr = 1e37;
  options.warmup_steps = 0;
  options.router = "frozen";
  options.reselect_every = 1;
  CHECK_THROWS_WITH(
      run(folder.path() / "out", options),
      Contains("before choosing") && Contains("in layer 1"));
  CHECK(
      artifact::load_newest_state(folder.path() / "out.partial", "tune")
          ->step == 1);
}

TEST_CASE_METHOD(Fixture, "the size of micro-batches changes only rounding") {
  TuneOptions options = small_options();
  options.reselect_every = 0;
  run(folder.path() / "a", options);
  const auto model = open_model(base);
  text::Mixture train = mixture(options.seq_len, 1);
  SilentReporter reporter;
  tune::tune(
      {.model = *model,
       .train = train,
       .held_out = {},
       .out = folder.path() / "b",
       .micro_batch_tokens = 64,
       .sweep = {}},
      options,
      reporter);
  const auto a = adapter_of(folder.path() / "a");
  const auto b = adapter_of(folder.path() / "b");
  REQUIRE(a.size() == b.size());
  for (const auto& [name, tensor] : a) {
    INFO(name);
    // Seven updates of 0.02 by signs of sums that differ in the last bits.
    CHECK(at::allclose(tensor, b.at(name), 1e-3, 1e-3));
  }
}

TEST_CASE_METHOD(
    Fixture, "a model that is on disk again each time gives the same") {
  TuneOptions options = small_options();
  run(folder.path() / "a", options);
  model::CausalLm streamed(base, {});
  text::Mixture train = mixture(options.seq_len, 1);
  SilentReporter reporter;
  tune::tune(
      {.model = streamed,
       .train = train,
       .held_out = {},
       .out = folder.path() / "b",
       .micro_batch_tokens = 32,
       .sweep = {.activations = {.ram_bytes = 4096}}},
      options,
      reporter);
  check_equal(adapter_of(folder.path() / "a"), adapter_of(folder.path() / "b"));
}

TEST_CASE_METHOD(Fixture, "an output folder that exists is refused") {
  fs::create_directories(folder.path() / "out");
  CHECK_THROWS_AS(run(folder.path() / "out", small_options()), UserError);
}

TEST_CASE_METHOD(Fixture, "a step without a token to train on is refused") {
  const auto model = open_model(base);
  // One label in a hundred steps' worth of tokens.
  text::Sample sparse = sample(6400, 1);
  std::fill(sparse.labels.begin(), sparse.labels.end(), text::kMasked);
  sparse.labels.back() = sparse.ids.back();
  text::Mixture train({{"a", 1.0, {sparse}}}, {.seed = 1, .seq_len = 16});
  SilentReporter reporter;
  CHECK_THROWS_WITH(
      tune::tune(
          {.model = *model,
           .train = train,
           .held_out = {},
           .out = folder.path() / "out",
           .micro_batch_tokens = 32,
           .sweep = {}},
          small_options(),
          reporter),
      Contains("step 1") && Contains("masked"));
}

TEST_CASE_METHOD(Fixture, "routers learn to speak like a teacher") {
  teacher = folder.path() / "teacher";
  write_tiny_model(teacher, 2);
  TuneOptions options = small_options();
  options.method = "router_kd";
  options.frac = 0.05;
  options.reselect_every = 0;
  options.score_sequences = 32;
  options.steps = 20;
  options.router_lr = 0.05;
  options.kd_top = 6;
  run(folder.path() / "whole", options);
  CHECK(teachers_opened == 1);
  const auto lines = lines_of(folder.path() / "whole/metrics.jsonl");
  CHECK(lines[1]["loss"] == lines[1]["kl"]);
  CHECK(lines[20]["kl"].get<double>() < 0.9 * lines[1]["kl"].get<double>());
  CHECK_FALSE(fs::exists(folder.path() / "whole/teacher"));
  for (const auto& [name, tensor] : adapter_of(folder.path() / "whole")) {
    CHECK_THAT(name, Contains("router.layers."));
  }

  // Stopped and resumed: the same bits, and the teacher is not asked again.
  const fs::path out = folder.path() / "stopped";
  StopAfter reporter(3);
  CHECK(run(out, options, reporter).stopped);
  CHECK(teachers_opened == 2);
  options.resume = true;
  run(out, options);
  CHECK(teachers_opened == 2);
  check_equal(adapter_of(out), adapter_of(folder.path() / "whole"));
}

TEST_CASE_METHOD(Fixture, "the data and a teacher share the loss") {
  teacher = folder.path() / "teacher";
  write_tiny_model(teacher, 2);
  TuneOptions options = small_options();
  options.kd_weight = 0.25;
  options.steps = 1;
  run(folder.path() / "out", options);
  const auto line = lines_of(folder.path() / "out/metrics.jsonl")[1];
  CHECK(
      line["loss"].get<double>() ==
      Approx(
          0.75 * line["nll"].get<double>() + 0.25 * line["kl"].get<double>()));
}

TEST_CASE_METHOD(Fixture, "ESFT trains the experts that do the work") {
  TuneOptions options = small_options();
  options.method = "esft";
  options.frac = 0.05;
  options.reselect_every = 0;
  options.esft_share = 0.5;
  options.steps = 20;
  const TuneResult result = run(folder.path() / "whole", options);
  CHECK(result.held_out_after[0].nll < result.held_out_before[0].nll - 0.1);
  const auto adapter = adapter_of(folder.path() / "whole");
  CHECK_FALSE(adapter.empty());
  for (const auto& [name, tensor] : adapter) {
    CHECK_THAT(name, Contains("experts.layers.") && Contains(".expert_"));
  }
  const fs::path out = folder.path() / "stopped";
  StopAfter reporter(3);
  CHECK(run(out, options, reporter).stopped);
  options.resume = true;
  run(out, options);
  check_equal(adapter_of(out), adapter);
}

TEST_CASE_METHOD(Fixture, "all weights are trained from disk as from memory") {
  TuneOptions options = small_options();
  options.method = "full";
  options.frac = 0.05;
  options.reselect_every = 0;
  options.score_sequences = 32;
  options.clip_norm = 0.0;  // by layer on disk
  options.states = "ram";
  const TuneResult in_memory = run(folder.path() / "ram", options);
  options.states = "disk";
  const TuneResult on_disk = run(folder.path() / "disk", options);
  CHECK(on_disk.trainable_weights == in_memory.trainable_weights);
  CHECK(on_disk.held_out_after[0].nll < on_disk.held_out_before[0].nll - 0.2);
  const auto expected = adapter_of(folder.path() / "ram");
  const auto found =
      artifact::load_tensors(folder.path() / "disk/weights.safetensors")
          .tensors;
  CHECK(expected.size() > 40);
  check_equal(found, expected);
  for (const auto& entry : fs::directory_iterator(folder.path() / "disk")) {
    CHECK_THAT(entry.path().filename().string(), !Contains("weights-"));
  }

  // Stopped after a save and between two saves (save_every is 2).
  for (const int stop : {2, 3}) {
    const fs::path out = folder.path() / ("stopped" + std::to_string(stop));
    options.resume = false;
    StopAfter reporter(stop);
    CHECK(run(out, options, reporter).stopped);
    options.resume = true;
    run(out, options);
    check_equal(
        artifact::load_tensors(out / "weights.safetensors").tensors, expected);
  }
}

TEST_CASE_METHOD(Fixture, "a killed run finds the state on disk it saved") {
  TuneOptions options = small_options();
  options.method = "full";
  options.frac = 0.05;
  options.reselect_every = 0;
  options.score_sequences = 32;
  options.match = "mlp";
  run(folder.path() / "whole", options);
  // After step 4 was saved, step 5 fails half-way: the file of step 4 stays.
  const fs::path out = folder.path() / "killed";
  StopAfter reporter(4);
  run(out, options, reporter);
  const fs::path partial = folder.path() / "killed.partial";
  fs::copy(partial, folder.path() / "kept", fs::copy_options::recursive);
  options.resume = true;
  StopAfter again(1);
  run(out, options, again);
  // As if killed in step 5: the other file has changed, the state is step 4's.
  fs::remove_all(partial / "state-00000005");
  fs::copy(
      folder.path() / "kept/state-00000004",
      partial / "state-00000004",
      fs::copy_options::recursive);
  run(out, options);
  check_equal(
      artifact::load_tensors(out / "weights.safetensors").tensors,
      artifact::load_tensors(folder.path() / "whole/weights.safetensors")
          .tensors);
}
