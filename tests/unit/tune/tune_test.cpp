// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "core/error.h"
#include "whole_runs.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using Catch::Contains;

TEST_CASE_METHOD(WholeRuns, "tuning lowers the loss and records every step") {
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

TEST_CASE_METHOD(WholeRuns, "the progress line tells of each step") {
  TuneOptions options = small_options();
  Notes notes;
  const fs::path out = folder.path() / "out";
  train_on(mixture(options.seq_len, 1), out, options, notes);
  REQUIRE(notes.told.size() == 7);
  const Json first = lines_of(out / "metrics.jsonl")[1];
  CHECK(
      notes.told[0] == fmt::format(
                           "step 1 of 7, loss {:.4f}, lr 0.01, norm {:.2g}",
                           first["loss"].get<double>(),
                           first["grad_norm"].get<double>()));
  CHECK_THAT(notes.told[6], Contains("step 7 of 7, loss "));
}

TEST_CASE_METHOD(WholeRuns, "two runs give the same bits") {
  run(folder.path() / "a", small_options());
  run(folder.path() / "b", small_options());
  check_same(adapter_of(folder.path() / "a"), adapter_of(folder.path() / "b"));
}

TEST_CASE_METHOD(
    WholeRuns, "a run resumed after any step ends in the same bits") {
  TuneOptions options = small_options();
  options.method = GENERATE("usaf", "usaf+condenser");
  if (options.method != "usaf") {
    options.condensers = 1;
    options.condenser_after = 4;
  }
  const TuneResult unbroken = run(folder.path() / "whole", options);
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
    CHECK(second.found() == unbroken.found());
    CHECK(second.tokens == 7 * 64);
    REQUIRE(second.held_out_before.size() == 1);
    CHECK(second.seconds > first.seconds);
    check_same(adapter_of(out), whole);
    CHECK(
        read_json(out / "adapter.json", "test") ==
        read_json(folder.path() / "whole/adapter.json", "test"));
    const auto resumed = lines_of(out / "metrics.jsonl");
    REQUIRE(resumed.size() == lines.size());
    for (std::size_t i = 1; i < lines.size(); ++i) {
      CHECK(resumed[i]["loss"] == lines[i]["loss"]);
      CHECK(resumed[i]["grad_norm"] == lines[i]["grad_norm"]);
    }
  }
}

TEST_CASE_METHOD(WholeRuns, "a killed run resumes from its last saved state") {
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
  check_same(adapter_of(out), adapter_of(folder.path() / "whole"));
  CHECK(lines_of(out / "metrics.jsonl").size() == 8);
}

TEST_CASE_METHOD(WholeRuns, "a saved state is not thrown away unasked") {
  const fs::path out = folder.path() / "out";
  const fs::path state = folder.path() / "out.partial/state-00000003";
  TuneOptions options = small_options();
  StopAfter reporter(3);
  run(out, options, reporter);
  REQUIRE(fs::exists(state));
  CHECK_THROWS_WITH(
      run(out, options),
      Contains("holds a run stopped after step 3; go on with --resume, or "
               "throw that away with --restart"));
  CHECK(fs::exists(state));
  options.restart = true;
  CHECK(run(out, options).steps == 7);
}

TEST_CASE_METHOD(WholeRuns, "what a state found is checked") {
  const fs::path out = folder.path() / "out";
  TuneOptions options = small_options();
  StopAfter reporter(3);
  run(out, options, reporter);
  const fs::path file = folder.path() / "out.partial/state-00000003/state.json";
  const Json sound = read_json(file, "test");
  options.resume = true;
  for (const auto& item : sound["found"].items()) {
    CAPTURE(item.key());
    Json json = sound;
    json["found"][item.key()] = Json::array({3});
    std::ofstream(file) << json;
    CHECK_THROWS_AS(run(out, options), UserError);
  }
  // As of other held-out data: its losses are of no use here.
  Json json = sound;
  json["found"]["held_out_before"][0]["name"] = "other";
  std::ofstream(file) << json;
  CHECK(run(out, options).held_out_before.empty());
}

TEST_CASE_METHOD(WholeRuns, "a run that is whole tells its result") {
  const fs::path out = folder.path() / "out";
  TuneOptions options = small_options();
  const auto model = open_model(base);
  CHECK_FALSE(finished_run(out, model->reader(), options).has_value());
  const TuneResult result = run(out, options);
  options.save_every = 5;
  const auto told = finished_run(out, model->reader(), options);
  REQUIRE(told.has_value());
  CHECK(told->found() == result.found());
  CHECK(told->held_out_after[0].nll == result.held_out_after[0].nll);
  options.lr *= 2;
  CHECK_THROWS_WITH(
      finished_run(out, model->reader(), options), Contains("options/lr"));
}

TEST_CASE_METHOD(WholeRuns, "a resume with something else is refused by name") {
  const fs::path out = folder.path() / "out";
  TuneOptions options = small_options();
  StopAfter reporter(1);
  run(out, options, reporter);
  options.resume = true;
  SECTION("another option") {
    options.beta1 = 0.5;
    CHECK_THROWS_WITH(run(out, options), Contains("options/beta1"));
  }
  SECTION("other data") {
    StopAfter never(-1);
    CHECK_THROWS_WITH(run(out, options, never, 2), Contains("data/seed"));
  }
  SECTION("other weights of the data") {
    SilentReporter silent;
    CHECK_THROWS_WITH(
        train_on(mixture(options.seq_len, 1, 3.0), out, options, silent),
        Contains("data/sources/0/weight"));
  }
  SECTION("another model") {
    fs::remove_all(base);
    write_tiny_model(base, 2);
    CHECK_THROWS_WITH(run(out, options), Contains("model"));
  }
}

TEST_CASE_METHOD(
    WholeRuns, "a resume without a state starts from the beginning") {
  TuneOptions options = small_options();
  options.resume = true;
  CHECK(run(folder.path() / "out", options).held_out_before.size() == 1);
}

TEST_CASE_METHOD(WholeRuns, "the size of micro-batches changes only rounding") {
  TuneOptions options = small_options();
  options.reselect_every = 0;
  run(folder.path() / "a", options);
  micro_batch_tokens = 64;
  run(folder.path() / "b", options);
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
    WholeRuns, "a model that is on disk again each time gives the same") {
  TuneOptions options = small_options();
  run(folder.path() / "a", options);
  from_disk = true;
  run(folder.path() / "b", options);
  check_same(adapter_of(folder.path() / "a"), adapter_of(folder.path() / "b"));
}

TEST_CASE_METHOD(WholeRuns, "an output folder that exists is refused") {
  fs::create_directories(folder.path() / "out");
  CHECK_THROWS_AS(run(folder.path() / "out", small_options()), UserError);
}
