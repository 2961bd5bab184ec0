// SPDX-License-Identifier: Apache-2.0
#include "tune/run_plan.h"

#include <catch2/catch.hpp>

#include "tune/method.h"
#include "whole_runs.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;

namespace {

struct Planned : WholeRuns {
  model::ModelReader reader{base};
  TuneOptions options = small_options();
  sweep::SweepPlan sweep = plan_of(std::int64_t{4} << 30);

  sweep::SweepPlan plan_of(std::int64_t ram) const {
    return sweep::plan_sweep(
        reader,
        {.tokens = 64, .longest_sequence = 16, .backward = true},
        {.ram = ram, .vram = {}});
  }
  RunPlan plan(bool has_teacher = false) const {
    return plan_run(sweep, options, reader, has_teacher);
  }
};

const PlanRow& row(const RunPlan& plan, const std::string& what) {
  const auto found = std::ranges::find(plan.rows, what, &PlanRow::what);
  REQUIRE(found != plan.rows.end());
  return *found;
}

// bf16 but for the routers of two layers, 4 x 16 in fp32.
std::int64_t bytes_on_disk(const model::ModelReader& reader) {
  std::int64_t weights = 0;
  for (std::int64_t l = 0; l < reader.config().num_layers(); ++l) {
    for (const auto& id : model::layer_weights(reader.config(), l)) {
      weights += model::weight_numel(reader.config(), id);
    }
  }
  return 2 * weights + 2 * (2 * 4 * kHidden);
}

}  // namespace

TEST_CASE_METHOD(Planned, "a model that fits moves nothing") {
  const RunPlan made = plan();
  CHECK_FALSE(made.moves());
  CHECK(made.io_seconds() == 0.0);
  CHECK(made.to_json()["io_seconds_per_step"] == 0.0);
  CHECK(made.total().device == 0);
  // The rows are the sweep's budget, and the parts beside it.
  CHECK(
      made.total().ram ==
      sweep.ram_bytes() + part_bytes(options, reader.config()));
  CHECK(row(made, "boundary activations").ram == sweep.activation_bytes);
}

TEST_CASE_METHOD(Planned, "layers that are streamed are read twice a step") {
  sweep.resident_bytes = 0;
  RunPlan made = plan();
  CHECK(made.read_bytes == 2 * bytes_on_disk(reader));
  CHECK(made.written_bytes == 0);
  CHECK(made.to_json()["io_seconds_per_step"].is_null());
  made.disk_speed = static_cast<double>(made.read_bytes) / 4.0;
  CHECK(made.io_seconds() == 4.0);
  // The first layer stays.
  sweep.resident_bytes = reader.layer_bytes(0, at::kFloat);
  CHECK(plan().read_bytes < made.read_bytes);
  CHECK(plan().moves());
  sweep.resident_bytes = std::int64_t{1} << 30;
  sweep.spilled_bytes = 100;
  CHECK(plan().read_bytes == 300);
  CHECK(plan().written_bytes == 200);
}

TEST_CASE_METHOD(Planned, "states on disk are read and written each step") {
  options = TuneOptions{};
  options.method = "full";
  options.seq_len = 16;
  options.tokens_per_step = 64;
  const RunPlan made = plan();
  // Masters and moments are 12 bytes a weight, and the values read twice 8.
  CHECK(made.written_bytes % 12 == 0);
  const std::int64_t weights = made.written_bytes / 12;
  CHECK(made.read_bytes == 20 * weights);
  CHECK(row(made, "saved states").disk == 24 * weights);
  options.states = "ram";
  CHECK_FALSE(plan().moves());
  CHECK(row(plan(), "saved states").disk == 24 * weights);
}

TEST_CASE_METHOD(Planned, "what computes is on the device where there is one") {
  sweep.workload.device = at::Device(at::kCUDA, 0);
  const RunPlan made = plan();
  CHECK(
      made.total().device ==
      sweep.vram_bytes() + part_bytes(options, reader.config()));
  CHECK(row(made, "layer in use, layer fetched").ram == sweep.layer_bytes);
}

TEST_CASE_METHOD(Planned, "a teacher's words take disk") {
  options.kd_top = 6;
  // Ids and log-probabilities of six tokens, and the rest, of 64 tokens a step.
  CHECK(
      row(plan(true), "what the teacher says").disk ==
      options.steps * 64 * (6 * 8 + 4));
  CHECK(plan(true).rows.size() == plan().rows.size() + 1);
  CHECK(largest_shard(reader) == base / "model.safetensors");
}

TEST_CASE_METHOD(
    Planned, "the time that weights are waited for is told apart") {
  options.steps = 3;
  options.reselect_every = 0;
  run(folder.path() / "resident", options);
  model::CausalLm streamed(base, {});
  text::Mixture train = mixture(options.seq_len, 1);
  SilentReporter reporter;
  tune::tune(
      {.model = streamed,
       .train = train,
       .held_out = {},
       .out = folder.path() / "streamed",
       .micro_batch_tokens = 32,
       .sweep = {}},
      options,
      reporter);
  const auto seconds = [&](const char* name, std::size_t step) {
    return lines_of(folder.path() / name / "metrics.jsonl")[step]["seconds"];
  };
  // Lines of a run with held-out data begin before the first step.
  CHECK(seconds("resident", 3)["wait"] == 0.0);
  const Json last = seconds("streamed", 2);
  CHECK(last["wait"] > 0.0);
  CHECK(
      last["wait"].get<double>() <
      last["forward"].get<double>() + last["backward"].get<double>());
}
