// SPDX-License-Identifier: Apache-2.0
// Steps without anything to train on, or without a finite loss or gradient.
#include "core/error.h"
#include "whole_runs.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using Catch::Contains;

namespace {

constexpr std::int32_t kImpossible = kVocab - 1;

// A document as long as a sequence.
text::Sample document(int i, bool bad) {
  text::Sample one;
  for (int t = 0; t < 16; ++t) one.ids.push_back((i + 3 * t) % 7);
  if (bad) one.ids[8] = kImpossible;
  one.labels = one.ids;
  return one;
}

text::Mixture documents(int good, int bad, std::uint64_t seed) {
  text::WeightedSamples source{"a.jsonl", 1.0, {}};
  for (int i = 0; i < good + bad; ++i) {
    source.samples.push_back(document(i, i >= good));
  }
  return text::Mixture({source}, {.seed = seed, .seq_len = 16});
}

// Eight good documents and a bad one in turn, beginning with the good.
text::Mixture in_turn() {
  text::WeightedSamples good{"good.jsonl", 8.0, {}};
  text::WeightedSamples bad{"bad.jsonl", 1.0, {document(0, true)}};
  for (int i = 0; i < 9; ++i) good.samples.push_back(document(i, false));
  return text::Mixture({good, bad}, {.seed = 1, .seq_len = 16});
}

struct BadSteps : WholeRuns {
  BadSteps() {
    fs::remove_all(base);
    write_tiny_model(base, {.impossible = kImpossible});
    held_out.clear();
  }
};

TuneOptions lora_options() {
  TuneOptions options;
  options.method = "lora";
  options.rank = 2;
  options.steps = 20;
  options.tokens_per_step = 64;
  options.seq_len = 16;
  options.lr = 0.01;
  options.save_every = 0;
  return options;
}

void check_finite(const artifact::TensorMap& tensors) {
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    CHECK(tensor.isfinite().all().item<bool>());
  }
}

}  // namespace

TEST_CASE_METHOD(BadSteps, "a step without a finite loss is skipped and told") {
  const fs::path out = folder.path() / "out";
  Notes notes;
  const TuneResult result =
      train_on(documents(37, 3, 1), out, lora_options(), notes);
  CHECK(result.steps == 20);
  CHECK(result.skipped_steps > 0);
  CHECK(result.skipped_steps <= 6);  // two epochs of three bad documents
  CHECK_THAT(notes.all, Contains("is skipped: the loss is not finite"));
  const auto lines = lines_of(out / "metrics.jsonl");
  REQUIRE(lines.size() == 20);
  std::int64_t skipped = 0;
  for (const Json& line : lines) {
    CHECK(line.contains("loss") != line.contains("skipped"));
    skipped += line.contains("skipped") ? 1 : 0;
  }
  CHECK(skipped == result.skipped_steps);
  check_finite(adapter_of(out));
  const Json info = read_json(out / "adapter.json", "test");
  CHECK(info["measured"]["skipped_steps"] == skipped);
}

TEST_CASE_METHOD(
    BadSteps,
    "too many bad steps in a row end a run that goes on behind them") {
  TuneOptions options = lora_options();
  options.tokens_per_step = 8 * 16;  // the first step is good, eight are bad
  const fs::path out = folder.path() / "out";
  Notes notes;
  CHECK_THROWS_WITH(
      train_on(in_turn(), out, options, notes),
      Contains("3 steps in a row") && Contains("the weights are sound") &&
          Contains("--resume"));
  const fs::path partial = folder.path() / "out.partial";
  const auto first = artifact::load_newest_state(partial, "tune");
  REQUIRE(first.has_value());
  CHECK(first->step == 4);
  options.resume = true;
  options.max_bad_steps = 20;
  const TuneResult result = train_on(in_turn(), out, options, notes);
  CHECK(result.steps == 20);
  CHECK(result.skipped_steps >= 8);
  CHECK(result.skipped_steps < 20);
  CHECK(lines_of(out / "metrics.jsonl").size() == 20);
}

TEST_CASE_METHOD(BadSteps, "a model without any finite loss is told as such") {
  Notes notes;
  CHECK_THROWS_WITH(
      train_on(
          documents(0, 9, 1), folder.path() / "out", lora_options(), notes),
      Contains("step 3") && Contains("evaluate the model first"));
}

TEST_CASE_METHOD(BadSteps, "nothing of a skipped step reaches the next") {
  TuneOptions options = small_options();
  options.method = "usaf+condenser";
  options.condensers = 1;
  // Logits beyond fp32 in all steps but the last.
  options.router = "gumbel";
  options.gumbel_noise = 1e39;
  options.max_bad_steps = 10;
  Notes notes;
  const fs::path out = folder.path() / "out";
  const TuneResult result = train_on(documents(9, 0, 1), out, options, notes);
  CHECK(result.skipped_steps >= 3);
  CHECK(result.skipped_steps < 7);
  check_finite(adapter_of(out));
}

TEST_CASE_METHOD(
    WholeRuns, "weights that diverged are not saved over those that did not") {
  TuneOptions options = small_options();
  options.router = "frozen";
  const fs::path out = folder.path() / "out";
  StopAfter four(4);
  run(out, options, four);
  const auto saved = [&] {
    return artifact::load_newest_state(folder.path() / "out.partial", "tune")
        ->step;
  };
  CHECK(saved() == 4);
  options.resume = true;
  options.lr = 1e37;
  options.warmup = 0;
  const auto every = GENERATE(1, 2, 50);
  options.save_every = every;
  options.reselect_every = GENERATE(0, 3);
  if (options.reselect_every == 0) {
    CHECK_THROWS_WITH(run(out, options), Contains("options/reselect_every"));
    return;
  }
  CHECK_THROWS_WITH(
      run(out, options),
      Contains("diverged") && Contains("the state of step 4 is saved"));
  CHECK_FALSE(fs::exists(out));
  CHECK(saved() == 4);
  options.lr = 0.001;
  options.steps = 8;
  const TuneResult result = run(out, options);
  CHECK(result.steps == 8);
  CHECK(result.skipped_steps == 0);
  check_finite(adapter_of(out));
}

TEST_CASE_METHOD(WholeRuns, "a run that diverges at once says where to begin") {
  TuneOptions options = small_options();
  options.lr = 1e37;
  options.warmup = 0;
  options.router = "frozen";
  options.reselect_every = GENERATE(0, 1);
  const fs::path out = folder.path() / "out";
  CHECK_THROWS_WITH(
      run(out, options),
      Contains("in layer 1") && Contains("before a state was saved") &&
          Contains("lower --lr"));
  CHECK_FALSE(fs::exists(out));
  CHECK_FALSE(fs::exists(folder.path() / "out.partial"));
}

TEST_CASE_METHOD(
    WholeRuns,
    "rates, schedule and steps may change on a resume, and are told") {
  TuneOptions options = small_options();
  const fs::path out = folder.path() / "out";
  StopAfter three(3);
  run(out, options, three);
  options.resume = true;
  options.steps = 2;
  options.router_warmup = 0;
  CHECK_THROWS_WITH(run(out, options), Contains("[tune] steps: expected"));
  options.router_warmup = small_options().router_warmup;
  options.steps = 9;
  options.lr = 0.005;
  options.min_lr_ratio = 1.0;
  Notes notes;
  const TuneResult result =
      train_on(mixture(options.seq_len, 1), out, options, notes);
  CHECK(result.steps == 9);
  CHECK_THAT(
      notes.all,
      Contains("lr is 0.005 from step 4 on; it was 0.02") &&
          Contains("steps is 9 from step 4 on; it was 7"));
  const auto lines = lines_of(out / "metrics.jsonl");
  REQUIRE(lines.size() == 10);
  CHECK(lines[3]["lr"]["neurons"] > 0.01);
  for (std::size_t i = 4; i < 10; ++i)
    CHECK(lines[i]["lr"]["neurons"] == 0.005);
}

TEST_CASE_METHOD(
    WholeRuns, "sequences whose labels are all masked are left out") {
  // Two labels in a hundred sequences' worth of tokens.
  text::Sample sparse = sample(1600, 1);
  std::fill(sparse.labels.begin(), sparse.labels.end(), text::kMasked);
  sparse.labels[40] = sparse.ids[40];
  sparse.labels.back() = sparse.ids.back();
  text::Mixture train({{"a", 1.0, {sparse}}}, {.seed = 1, .seq_len = 16});
  TuneOptions options = small_options();
  options.steps = 2;
  options.router = "frozen";
  const fs::path out = folder.path() / "out";
  SilentReporter reporter;
  held_out.clear();
  const TuneResult result = train_on(std::move(train), out, options, reporter);
  CHECK(result.skipped_steps == 0);
  // Eight sequences are trained on, of four rounds.
  CHECK(result.masked_sequences > 300);
  CHECK(result.masked_sequences < 500);
  for (const Json& line : lines_of(out / "metrics.jsonl")) {
    CHECK(line["loss_tokens"] == 4);
    CHECK(line["masked_sequences"] > 100);
  }
}
