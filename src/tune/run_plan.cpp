// SPDX-License-Identifier: Apache-2.0
#include "tune/run_plan.h"

#include <algorithm>

#include "artifact/model_writer.h"
#include "tune/method/method.h"
#include "tune/teacher.h"

namespace fettle::tune {

namespace {

std::int64_t stored_bytes(const PlannedModel& model, std::int64_t l) {
  std::int64_t total = 0;
  for (const auto& id : model::layer_weights(model.config, l)) {
    total += artifact::weight_bytes(model.config, id, model.forms(id));
  }
  return total;
}

// Bytes of the layers that the cache can't keep. It keeps the first it meets.
std::int64_t streamed_bytes(
    const sweep::SweepPlan& plan, const PlannedModel& model) {
  std::int64_t kept = 0;
  std::int64_t streamed = 0;
  const model::LoadedBytes loaded = model::loaded_bytes(
      model.config, model.forms, plan.workload.compute_type);
  for (std::int64_t l = 0; l < model.config.num_layers(); ++l) {
    const std::int64_t bytes = loaded.layers[l].kept;
    if (kept + bytes <= plan.resident_bytes) {
      kept += bytes;
    } else {
      streamed += stored_bytes(model, l);
    }
  }
  return streamed;
}

std::int64_t teacher_bytes(
    const TuneOptions& options, const model::ModelConfig& config) {
  const std::int64_t tokens =
      options.tokens_per_step / options.seq_len * options.seq_len;
  const TeacherFiles files(
      {}, tokens, std::min(options.kd_top, config.vocab_size));
  return options.steps * files.bytes_per_step();
}

std::vector<PlanRow> sweep_rows(const sweep::SweepPlan& plan) {
  const bool cpu = plan.workload.device.is_cpu();
  const auto computed = [&](std::string what, std::int64_t bytes) {
    return cpu ? PlanRow{std::move(what), bytes, 0, 0}
               : PlanRow{std::move(what), 0, bytes, 0};
  };
  std::vector<PlanRow> rows{
      {"program and libraries", plan.runtime_bytes, plan.library_bytes, 0},
      computed("embeddings and head", plan.global_bytes),
      computed(
          plan.read_ahead ? "layer in use, layer fetched" : "layer in use",
          plan.layer_bytes),
      computed("layers kept between sweeps", plan.resident_bytes),
      computed(
          "one micro-batch at work",
          plan.computing_bytes() - plan.layer_bytes)};
  rows[2].ram += plan.staging_bytes;
  rows.push_back(
      {"boundary activations",
       plan.activation_bytes,
       plan.card_activation_bytes,
       plan.spilled_bytes});
  rows.push_back(
      {"autograd graphs kept for the backward pass", plan.graph_bytes, 0, 0});
  return rows;
}

}  // namespace

PlanRow RunPlan::total() const {
  PlanRow sum{"in all", 0, 0, 0};
  for (const PlanRow& row : rows) {
    sum.ram += row.ram;
    sum.device += row.device;
    sum.disk += row.disk;
  }
  return sum;
}

double RunPlan::io_seconds() const {
  if (disk_speed <= 0.0) return 0.0;
  return static_cast<double>(read_bytes + written_bytes) / disk_speed;
}

Json RunPlan::to_json() const {
  Json table = Json::array();
  for (const PlanRow& row : rows) {
    table.push_back(
        {{"what", row.what},
         {"ram_bytes", row.ram},
         {"device_bytes", row.device},
         {"disk_bytes", row.disk}});
  }
  const bool measured = disk_speed > 0.0;
  return {
      {"rows", std::move(table)},
      {"read_bytes_per_step", read_bytes},
      {"written_bytes_per_step", written_bytes},
      {"disk_bytes_per_second", measured ? Json(disk_speed) : Json()},
      {"io_seconds_per_step",
       measured || !moves() ? Json(io_seconds()) : Json()}};
}

RunPlan plan_run(
    const sweep::SweepPlan& sweep,
    const TuneOptions& options,
    const PlannedModel& model,
    bool has_teacher) {
  RunPlan plan{.rows = sweep_rows(sweep)};
  const PartBytes parts = part_bytes(
      options,
      model.config,
      sweep.workload.device,
      sweep.workload.team.ranks());
  const DiskUse disk = part_disk_use(options, model.config);
  const auto held = static_cast<std::int64_t>(disk.held);
  plan.rows.push_back(
      {"gradients, masters, moments",
       static_cast<std::int64_t>(parts.ram),
       static_cast<std::int64_t>(parts.device),
       0});
  plan.rows.push_back({"saved states", 0, 0, held});
  if (has_teacher) {
    plan.rows.push_back(
        {"what the teacher says", 0, 0, teacher_bytes(options, model.config)});
  }
  // A boundary's input and gradient are both written, and the input is read on
  // either way.
  plan.read_bytes = 2 * streamed_bytes(sweep, model) + 3 * sweep.spilled_bytes +
                    static_cast<std::int64_t>(disk.read);
  plan.written_bytes =
      2 * sweep.spilled_bytes + static_cast<std::int64_t>(disk.written);
  return plan;
}

RunPlan plan_run(
    const sweep::SweepPlan& sweep,
    const TuneOptions& options,
    const model::ModelReader& reader,
    bool has_teacher) {
  return plan_run(
      sweep, options, {reader.config(), reader.forms()}, has_teacher);
}

std::filesystem::path largest_shard(const model::ModelReader& reader) {
  const auto& shards = reader.checkpoint().shards();
  const auto largest = std::ranges::max_element(
      shards, {}, [](const io::Shard& shard) { return shard.file->size(); });
  return reader.folder() / largest->file_name;
}

}  // namespace fettle::tune
