// SPDX-License-Identifier: Apache-2.0
#include "tune/adapter/adapter.h"
#include "tune/adapter/merge_adapter.h"
#include "whole_runs.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;
using Catch::Contains;

TEST_CASE_METHOD(WholeRuns, "routers learn to speak like a teacher") {
  teacher = folder.path() / "teacher";
  write_tiny_model(teacher, 2);
  TuneOptions options = small_options();
  options.method = "router_kd";
  options.frac = 0.05;
  options.reselect_every = 0;
  options.score_sequences = 32;
  options.steps = 20;
  options.router_lr = 0.05;
  options.router_warmup = 50;  // nothing else is trained: no waiting
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
  check_same(adapter_of(out), adapter_of(folder.path() / "whole"));
}

TEST_CASE_METHOD(WholeRuns, "the data and a teacher share the loss") {
  teacher = folder.path() / "teacher";
  write_tiny_model(teacher, 2);
  TuneOptions options = small_options();
  options.kd_weight = 0.25;
  options.steps = 1;
  options.router_warmup = 0;
  run(folder.path() / "out", options);
  const auto line = lines_of(folder.path() / "out/metrics.jsonl")[1];
  CHECK(
      line["loss"].get<double>() ==
      Approx(
          0.75 * line["nll"].get<double>() + 0.25 * line["kl"].get<double>()));
}

TEST_CASE_METHOD(WholeRuns, "ESFT trains the experts that do the work") {
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
  check_same(adapter_of(out), adapter);
}

TEST_CASE_METHOD(
    WholeRuns, "all weights are trained from disk as from memory") {
  // The large vocabulary's embeddings are kept in more than one piece.
  const TinyModel tiny =
      GENERATE(TinyModel{}, TinyModel{.tied = true}, TinyModel{.vocab = 70000});
  fs::remove_all(base);
  write_tiny_model(base, tiny);
  const bool large = tiny.vocab != kVocab;
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
  CHECK(expected.contains("weights.embed_tokens"));
  CHECK(expected.contains("weights.final_norm"));
  CHECK(expected.contains("weights.lm_head") != tiny.tied);
  const auto found =
      artifact::load_tensors(folder.path() / "disk/weights.safetensors")
          .tensors;
  CHECK(expected.size() > 40);
  check_same(found, expected);
  for (const auto& entry : fs::directory_iterator(folder.path() / "disk")) {
    CHECK_THAT(entry.path().filename().string(), !Contains("weights-"));
  }

  // Stopped after a save and between two saves (save_every is 2).
  for (const int stop : {2, 3}) {
    if (large && stop == 3) continue;
    const fs::path out = folder.path() / ("stopped" + std::to_string(stop));
    options.resume = false;
    StopAfter reporter(stop);
    CHECK(run(out, options, reporter).stopped);
    options.resume = true;
    run(out, options);
    check_same(
        artifact::load_tensors(out / "weights.safetensors").tensors, expected);
  }
}

TEST_CASE_METHOD(WholeRuns, "what was tuned outside the layers is merged") {
  const TinyModel tiny = GENERATE(TinyModel{}, TinyModel{.tied = true});
  fs::remove_all(base);
  write_tiny_model(base, tiny);
  TuneOptions options = small_options();
  options.method = "full";
  options.frac = 0.05;
  options.reselect_every = 0;
  options.score_sequences = 32;
  options.states = GENERATE("disk", "ram");
  const fs::path out = folder.path() / "out";
  const fs::path merged = folder.path() / "merged";
  const TuneResult result = run(out, options);
  const model::ModelReader reader(base);
  SilentReporter silent;
  merge_adapter(reader, out, {.dtype = "float32"}, merged, silent);
  const auto tuned = open_model(base);
  const Adapter adapter = Adapter::load(out, reader);
  tuned->set_patch([&](std::int64_t layer, model::LayerWeights& weights) {
    adapter.patch(layer, weights);
  });
  const at::Tensor layers_alone = logits_of(*tuned);
  adapter.patch_globals(tuned->globals());
  const at::Tensor all = logits_of(*tuned);
  CHECK_FALSE(layers_alone.equal(all));
  CHECK(logits_of(*open_model(merged)).equal(all));
  // The model that tuning evaluated is the merged one.
  const auto again = open_model(merged);
  const double nll =
      sweep::evaluate(
          *again,
          nullptr,
          held_out,
          {.micro_batch_tokens = 32, .chunk_tokens = 64, .sweep = {}},
          silent)
          .sets[0]
          .nll;
  CHECK(nll == Approx(result.held_out_after[0].nll).epsilon(1e-6));
}

TEST_CASE_METHOD(WholeRuns, "embeddings and head may stay as they are") {
  TuneOptions options = small_options();
  options.method = "full";
  options.frac = 0.05;
  options.reselect_every = 0;
  options.score_sequences = 32;
  options.states = "ram";
  options.embeddings = "frozen";
  run(folder.path() / "frozen", options);
  const auto frozen = adapter_of(folder.path() / "frozen");
  CHECK(frozen.contains("weights.final_norm"));
  CHECK_FALSE(frozen.contains("weights.embed_tokens"));
  CHECK_FALSE(frozen.contains("weights.lm_head"));
  // The head alone needs no backward pass through the layers.
  options.embeddings = "train";
  options.match = "lm_head";
  const TuneResult result = run(folder.path() / "head", options);
  CHECK(result.trainable_weights == kVocab * kHidden);
  CHECK(result.held_out_after[0].nll < result.held_out_before[0].nll);
  const auto head = adapter_of(folder.path() / "head");
  CHECK(head.size() == 1);
  CHECK(head.contains("weights.lm_head"));
}

TEST_CASE_METHOD(WholeRuns, "a killed run finds the state on disk it saved") {
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
  check_same(
      artifact::load_tensors(out / "weights.safetensors").tensors,
      artifact::load_tensors(folder.path() / "whole/weights.safetensors")
          .tensors);
}

TEST_CASE_METHOD(
    WholeRuns, "routers trained otherwise resume in the same bits") {
  for (const std::string router : {"gumbel", "densemixer"}) {
    TuneOptions options = small_options();
    options.router = router;
    run(folder.path() / router, options);
    const fs::path out = folder.path() / (router + "-stopped");
    StopAfter reporter(3);
    CHECK(run(out, options, reporter).stopped);
    options.resume = true;
    run(out, options);
    const auto whole = adapter_of(folder.path() / router);
    check_same(adapter_of(out), whole);
    options.resume = false;
    options.router = "topk";
    run(folder.path() / (router + "-topk"), options);
    const auto usual = adapter_of(folder.path() / (router + "-topk"));
    CHECK_FALSE(whole.at("router.layers.1.router")
                    .equal(usual.at("router.layers.1.router")));
  }
}
