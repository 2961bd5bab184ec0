// SPDX-License-Identifier: Apache-2.0
#include "tune/best_evaluation.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>

#include "artifact/run_state.h"
#include "core/error.h"
#include "tune/adapter/adapter.h"
#include "whole_runs.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using Catch::Contains;

namespace {

std::vector<sweep::EvalScore> losses(double a, double b) {
  return {{"a", 10, a, std::exp(a), {}, {}}, {"b", 20, b, std::exp(b), {}, {}}};
}

const std::vector<sweep::EvalSet> kSets{{"a", {}}, {"b", {}}};

struct Folder : TemporaryFolder {
  // Adapters kept, by what was written into them.
  std::vector<std::string> kept() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path())) {
      names.push_back(entry.path().filename().string());
    }
    std::ranges::sort(names);
    return names;
  }
  BestEvaluation::Write write(const std::string& text) const {
    return [text](const fs::path& folder) {
      std::ofstream(folder / "adapter") << text;
    };
  }
};

// The rate rises until the loss does.
TuneOptions overshooting() {
  TuneOptions options = small_options();
  options.steps = 20;
  options.eval_every = 1;
  options.reselect_every = 0;
  options.lr = 2.0;
  options.router = "frozen";
  options.warmup = 2;
  options.patience = 2;
  return options;
}

}  // namespace

TEST_CASE("the lowest mean over the sets is the best, the first of equals") {
  const Folder folder;
  BestEvaluation best(folder.path(), {.patience = 2, .keep = true});
  CHECK(best.step() == 0);
  best.take(1, losses(3.0, 1.0), folder.write("1"));
  CHECK(best.step() == 1);
  best.take(4, losses(1.5, 2.0), folder.write("4"));
  CHECK(best.step() == 4);
  CHECK(folder.kept() == std::vector<std::string>{"best-00000004"});
  best.take(6, losses(2.0, 1.5), folder.write("6"));
  CHECK(best.step() == 4);
  CHECK_FALSE(best.exhausted());
  best.take(8, losses(NAN, 0.0), folder.write("8"));
  CHECK(best.waited() == 2);
  CHECK(best.exhausted());
  CHECK(best.scores()[0].nll == 1.5);
  REQUIRE(best.take_over());
  REQUIRE(best.take_over());  // as a run that was killed in between does
  for (const char* place : {"adapter", "best-00000004/adapter"}) {
    std::ifstream file(folder.path() / place);
    CHECK(std::string(std::istreambuf_iterator<char>(file), {}) == "4");
  }
}

TEST_CASE("a state brings back the best and finds its adapter") {
  const Folder folder;
  const BestOptions options{.patience = 3, .keep = true};
  BestEvaluation best(folder.path(), options);
  artifact::TensorMap before;
  best.save_state(before);
  best.take(2, losses(2.0, 1.0), folder.write("2"));
  best.take(3, losses(3.0, 1.0), folder.write("3"));
  artifact::TensorMap state;
  best.save_state(state);
  best.state_saved();
  // Killed after a better one that no state names.
  best.take(4, losses(1.0, 1.0), folder.write("4"));
  CHECK(folder.kept().size() == 2);

  BestEvaluation resumed(folder.path(), options);
  resumed.load_state(state, kSets);
  CHECK(resumed.step() == 2);
  CHECK(resumed.waited() == 1);
  CHECK(resumed.scores()[0].nll == 2.0);
  CHECK(resumed.scores()[1].tokens == 20);
  CHECK(folder.kept() == std::vector<std::string>{"best-00000002"});
  resumed.take(4, losses(1.0, 1.0), folder.write("4"));
  CHECK(resumed.step() == 4);
  resumed.state_saved();
  CHECK(folder.kept() == std::vector<std::string>{"best-00000004"});

  BestEvaluation lost(folder.path(), options);
  CHECK_THROWS_WITH(
      lost.load_state(state, kSets), Contains("the best adapter so far"));
  lost.load_state(before, kSets);
  CHECK(lost.step() == 0);
  CHECK_THROWS_WITH(lost.load_state({}, kSets), Contains("evaluation.steps"));
}

TEST_CASE("held-out data of another text is told apart") {
  const std::vector<sweep::EvalSet> a{{"held", sequences(2, 16)}};
  std::vector<sweep::EvalSet> b = a;
  CHECK(held_out_identity(a) == held_out_identity(b));
  b[0].sequences[1].ids[3] += 1;
  CHECK(held_out_identity(a) != held_out_identity(b));
}

TEST_CASE_METHOD(WholeRuns, "a run that overshoots ends early with its best") {
  TuneOptions options = overshooting();
  const TuneResult result = run(folder.path() / "whole", options);
  CHECK(result.stopped_early);
  CHECK_FALSE(result.stopped);
  REQUIRE(result.best_step > 0);
  CHECK(result.steps == result.best_step + options.patience);
  const auto metrics = lines_of(folder.path() / "whole/metrics.jsonl");
  REQUIRE(metrics.size() == static_cast<std::size_t>(result.steps) + 1);
  for (std::size_t i = 1; i < metrics.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    const double nll = metrics[i]["eval"]["held"]["nll"].get<double>();
    CHECK((nll >= result.held_out_after[0].nll));
    CHECK((nll == result.held_out_after[0].nll) == (at == result.best_step));
    if (at >= result.best_step) {
      CHECK(metrics[i]["best_step"] == result.best_step);
    }
  }

  // The adapter is that of the best step, as a model that has it shows.
  const auto model = open_model(base);
  const Adapter adapter =
      Adapter::load(folder.path() / "whole", model->reader());
  CHECK(adapter.info().measured["best_step"] == result.best_step);
  model->set_patch([&](std::int64_t layer, model::LayerWeights& weights) {
    adapter.patch(layer, weights);
  });
  SilentReporter silent;
  const auto scores =
      sweep::evaluate(
          *model,
          nullptr,
          held_out,
          {.micro_batch_tokens = 32, .chunk_tokens = 64, .sweep = {}},
          silent)
          .sets;
  CHECK(scores[0].nll == result.held_out_after[0].nll);
  for (const auto& entry : fs::directory_iterator(folder.path() / "whole")) {
    CHECK_THAT(entry.path().filename().string(), !Contains("best"));
  }

  options.keep_best = "no";
  const TuneResult last = run(folder.path() / "last", options);
  CHECK(last.steps == result.steps);
  CHECK(last.best_step == 0);
  CHECK(last.held_out_after[0].nll > result.held_out_after[0].nll);
}

TEST_CASE_METHOD(WholeRuns, "an early end is the same when it was resumed") {
  TuneOptions options = overshooting();
  options.method = GENERATE("usaf", "full");
  if (options.method == "full") {
    const TuneOptions defaults;
    options.lr = 0.4;
    options.router = defaults.router;
    options.frac = defaults.frac;
    options.score_sequences = defaults.score_sequences;
    options.router_warmup = defaults.router_warmup;
    options.router_lr = defaults.router_lr;
  }
  const TuneResult whole = run(folder.path() / "whole", options);
  REQUIRE(whole.stopped_early);
  const char* file =
      options.method == "full" ? "weights.safetensors" : "adapter.safetensors";
  const auto expected =
      artifact::load_tensors(folder.path() / "whole" / file).tensors;
  for (const std::int64_t stop :
       {std::int64_t{1}, whole.best_step, whole.steps - 1, whole.steps}) {
    const std::string name = "stopped" + std::to_string(stop);
    options.resume = false;
    StopAfter reporter(static_cast<int>(stop));
    const TuneResult first = run(folder.path() / name, options, reporter);
    // A stop that comes with the end changes nothing.
    CHECK(first.stopped == (stop < whole.steps));
    if (first.stopped) {
      options.resume = true;
      const TuneResult second = run(folder.path() / name, options);
      CHECK(second.steps == whole.steps);
      CHECK(second.best_step == whole.best_step);
      CHECK(second.held_out_after[0].nll == whole.held_out_after[0].nll);
      CHECK(second.held_out_after[0].tokens == whole.held_out_after[0].tokens);
    }
    check_same(
        artifact::load_tensors(folder.path() / name / file).tensors, expected);
    CHECK(
        lines_of(folder.path() / name / "metrics.jsonl").size() ==
        lines_of(folder.path() / "whole/metrics.jsonl").size());
  }
}

TEST_CASE_METHOD(WholeRuns, "a run killed at its early end is resumed to it") {
  const TuneOptions options = overshooting();
  const TuneResult whole = run(folder.path() / "whole", options);
  // As if it were killed between the last state and the adapter.
  TuneOptions other = options;
  StopAfter reporter(static_cast<int>(whole.steps) - 1);
  run(folder.path() / "killed", other, reporter);
  auto state =
      *artifact::load_newest_state(folder.path() / "killed.partial", "tune");
  state.tensors["evaluation.steps"][1] = options.patience;
  state.step += 1;
  artifact::save_state(folder.path() / "killed.partial", state);
  other.resume = true;
  const TuneResult result = run(folder.path() / "killed", other);
  CHECK(result.steps == whole.steps);
  CHECK(result.stopped_early);
  check_same(
      adapter_of(folder.path() / "killed"),
      adapter_of(folder.path() / "whole"));
}

TEST_CASE_METHOD(WholeRuns, "a resume with other held-out data is refused") {
  TuneOptions options = small_options();
  StopAfter reporter(1);
  run(folder.path() / "out", options, reporter);
  options.resume = true;
  held_out[0].sequences[0].ids[2] += 1;
  CHECK_THROWS_WITH(
      run(folder.path() / "out", options), Contains("held_out/0/checksum"));
}

TEST_CASE_METHOD(WholeRuns, "a choice by evaluation needs something to judge") {
  TuneOptions options = small_options();
  options.patience = 2;
  options.eval_every = 0;
  CHECK_THROWS_WITH(
      run(folder.path() / "out", options),
      Contains("[tune] patience: ") && Contains("eval_every"));
  held_out.clear();
  CHECK_THROWS_WITH(
      run(folder.path() / "out", options),
      Contains("[tune] patience: ") && Contains("--eval-data"));
  options.patience = 0;
  options.keep_best = "yes";
  CHECK_THROWS_WITH(
      run(folder.path() / "out", options), Contains("[tune] keep_best: "));
  options.keep_best = "auto";
  CHECK(run(folder.path() / "out", options).best_step == 0);
}
