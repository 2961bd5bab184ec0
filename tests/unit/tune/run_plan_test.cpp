// SPDX-License-Identifier: Apache-2.0
#include "tune/run_plan.h"

#include <catch2/catch.hpp>

#include "tune/method/method.h"
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

// Weights by where they are.
struct Counts {
  std::int64_t layers = 0;
  std::int64_t globals = 0;
  std::int64_t largest = 0;   // of a layer
  std::int64_t matrices = 0;  // of a layer, outside its experts

  explicit Counts(const model::ModelConfig& config) {
    for (const auto& id : model::model_weights(config)) {
      (id.layer < 0 ? globals : layers) += model::weight_numel(config, id);
    }
    for (std::int64_t l = 0; l < config.num_layers(); ++l) {
      std::int64_t layer = 0;
      std::int64_t beside = 0;
      for (const auto& id : model::layer_weights(config, l)) {
        const std::int64_t count = model::weight_numel(config, id);
        layer += count;
        if (!model::is_expert_role(id.role)) beside += count;
      }
      largest = std::max(largest, layer);
      matrices = std::max(matrices, beside);
    }
  }
};

}  // namespace

TEST_CASE_METHOD(Planned, "a model that fits moves nothing") {
  const RunPlan made = plan();
  CHECK_FALSE(made.moves());
  CHECK(made.io_seconds() == 0.0);
  CHECK(made.to_json()["io_seconds_per_step"] == 0.0);
  CHECK(made.total().device == 0);
  // The rows are the sweep's budget, and the parts beside it.
  const PartBytes parts = part_bytes(options, reader.config(), at::kCPU);
  CHECK(parts.device == 0.0);
  CHECK(
      made.total().ram ==
      sweep.ram_bytes() + static_cast<std::int64_t>(parts.ram));
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
  sweep.resident_bytes = loaded_bytes(reader, at::kFloat).layers[0].kept;
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
  const Counts weights(reader.config());
  // Masters and moments are 12 bytes a weight; the values of layers are read
  // twice more, of others once.
  CHECK(made.written_bytes == 12 * (weights.layers + weights.globals));
  CHECK(made.read_bytes == 20 * weights.layers + 16 * weights.globals);
  const std::int64_t saved = 24 * (weights.layers + weights.globals);
  CHECK(row(made, "saved states").disk == saved);
  for (const char* states : {"ram", "device"}) {
    options.states = states;
    CHECK_FALSE(plan().moves());
    CHECK(row(plan(), "saved states").disk == saved);
  }
}

TEST_CASE_METHOD(Planned, "states of all weights are told where they are") {
  options = TuneOptions{};
  options.method = "full";
  options.seq_len = 16;
  options.tokens_per_step = 64;
  const Counts weights(reader.config());
  const std::int64_t all = weights.layers + weights.globals;
  // Of the step's tokens, all of the vocabulary may be met.
  const std::int64_t head = kVocab * kHidden;
  const std::int64_t rows = 8 * head + 4 * 64 * kHidden;
  // Embeddings and head are the largest weights, and below a piece's size.
  const std::int64_t pieces = 28 * head;
  const auto parts = [&](const char* states) {
    options.states = states;
    return row(plan(), "gradients, masters, moments");
  };
  // Two are updated at a time where they lie on disk.
  CHECK(parts("disk").ram == 4 * weights.largest + 2 * pieces + rows);
  for (const char* states : {"ram", "device"}) {
    CHECK(
        parts(states).ram ==
        12 * all + 4 * (weights.layers + head) + pieces + rows);
    CHECK(parts(states).device == 0);
  }
  sweep.workload.device = at::Device(at::kCUDA, 0);
  const std::int64_t layer = 4 * weights.largest + 2 * weights.matrices;
  CHECK(parts("disk").ram == 2 * pieces + rows);
  CHECK(parts("disk").device == layer);
  CHECK(parts("ram").ram == 12 * all + 4 * weights.layers + pieces + rows);
  CHECK(parts("ram").device == layer + 4 * head);
  CHECK(parts("device").ram == rows);
  CHECK(
      parts("device").device ==
      12 * all + 4 * (weights.layers + head) + 2 * weights.matrices + pieces);
  options.embeddings = "frozen";
  CHECK(parts("disk").ram == 2 * 28 * kHidden * kHidden);  // of o_proj
  // Tied, the head's gradient waits for that of the embeddings.
  options.embeddings = "train";
  const fs::path tied = folder.path() / "tied";
  write_tiny_model(tied, TinyModel{.tied = true});
  CHECK(
      part_bytes(
          options, model::ModelReader(tied).config(), sweep.workload.device)
          .device == static_cast<double>(layer + 4 * head));
}

TEST_CASE_METHOD(Planned, "what computes is on the device where there is one") {
  sweep::Workload workload = sweep.workload;
  workload.device = at::Device(at::kCUDA, 0);
  sweep = sweep::plan_sweep(
      reader, workload, {.ram = 8LL << 30, .vram = 1LL << 30});
  const RunPlan made = plan();
  const PartBytes parts = part_bytes(options, reader.config(), workload.device);
  CHECK(
      made.total().device ==
      sweep.vram_bytes() + static_cast<std::int64_t>(parts.device));
  CHECK(
      made.total().ram ==
      sweep.ram_bytes() + static_cast<std::int64_t>(parts.ram));
  // A layer's tensors lie there on their way, in blocks of powers of two.
  const std::int64_t layer =
      loaded_bytes(reader, workload.compute_type).layers[0].kept;
  const std::int64_t on_its_way = row(made, "layer in use, layer fetched").ram;
  CHECK((on_its_way > layer && on_its_way <= 2 * layer));
  // Boundaries stay on the card where there is room for all of them.
  const PlanRow boundaries = row(made, "boundary activations");
  CHECK((boundaries.device > 0 && boundaries.ram == 0 && boundaries.disk == 0));
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
  const auto line = [&](const char* name, std::size_t step) {
    return lines_of(folder.path() / name / "metrics.jsonl")[step];
  };
  const auto seconds = [&](const char* name, std::size_t step) {
    return line(name, step)["seconds"];
  };
  // Lines of a run with held-out data begin before the first step.
  CHECK(seconds("resident", 3)["wait"] == 0.0);
  const Json last = seconds("streamed", 2);
  CHECK(last["wait"] > 0.0);
  CHECK(
      last["wait"].get<double>() <
      last["forward"].get<double>() + last["backward"].get<double>());
  // Layers are loaded beside, and no states lie on disk.
  CHECK(line("resident", 3)["io_seconds"]["weights"] == 0.0);
  const Json io = line("streamed", 2)["io_seconds"];
  CHECK(io["weights"] > 0.0);
  CHECK(io["states"] == 0.0);
}
