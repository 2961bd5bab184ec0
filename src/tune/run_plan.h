// SPDX-License-Identifier: Apache-2.0
// What a run will take, reported before it begins: bytes by purpose and place,
// and what each step has to move from and to the disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/weights/model_reader.h"
#include "sweep/plan.h"
#include "tune/options/tune_options.h"

namespace fettle::tune {

struct PlanRow {
  std::string what;
  std::int64_t ram = 0;
  std::int64_t device = 0;  // 0 where the CPU computes
  std::int64_t disk = 0;
};

struct RunPlan {
  std::vector<PlanRow> rows;
  // In a step, at most: layers that don't stay in memory, activations that
  // spill, states on disk.
  std::int64_t read_bytes = 0;
  std::int64_t written_bytes = 0;
  double disk_speed = 0.0;  // bytes/s measured; 0: not measured

  bool moves() const { return read_bytes + written_bytes > 0; }
  PlanRow total() const;
  // Seconds to move what a step reads and writes, at the measured speed, with
  // nothing cached; 0 where nothing is moved or the speed isn't known.
  double io_seconds() const;
  Json to_json() const;
};

// A model that may not exist yet: its weights lie as `forms` say.
struct PlannedModel {
  const model::ModelConfig& config;
  model::WeightForms forms;
};

RunPlan plan_run(
    const sweep::SweepPlan& sweep,
    const TuneOptions& options,
    const PlannedModel& model,
    bool has_teacher);
RunPlan plan_run(
    const sweep::SweepPlan& sweep,
    const TuneOptions& options,
    const model::ModelReader& reader,
    bool has_teacher);

// The model's own largest file, to time the disk by.
std::filesystem::path largest_shard(const model::ModelReader& reader);

}  // namespace fettle::tune
