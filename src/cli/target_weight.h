// SPDX-License-Identifier: Apache-2.0
// What a model that is still to be made will weigh where it is to run.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "artifact/trim_plan.h"
#include "core/json.h"
#include "export/target.h"
#include "trim/plan.h"
#include "trim/repair.h"

namespace fettle::cli {

struct TargetWeight {
  exporter::Target target = exporter::Target::kFettle;
  exporter::Format format = exporter::Format::kRagged;
  std::int64_t bytes = 0;

  std::string text() const;  // "12.3 MiB as hf", without an end
  Json to_json() const;
};

// Headers of packed weights, and none of plain ones.
using PackedHeaders =
    std::function<std::optional<model::PackedHeader>(const model::WeightId&)>;
using PlainTypes = std::function<at::ScalarType(const model::WeightId&)>;

// A model of `config` whose weights lie so. Throws UserError where the target's
// format can't hold it.
struct PlannedModel {
  const model::ModelConfig& config;
  std::string name;
  PlainTypes dtype;
  PackedHeaders packed;
  std::int64_t carried_bytes = 0;  // beside the weights; at most
};
TargetWeight weigh(const PlannedModel& planned, exporter::Target target);

// A model folder trimmed by `plan`, to be weighed. Merged experts are plain.
struct TrimmedModel {
  const model::ModelReader& reader;
  const artifact::TrimPlan& plan;
  trim::Repair repair = trim::Repair::kNone;
  bool merges = false;
  trim::Stored stored = trim::Stored::kPlain;
};
TargetWeight weigh(const TrimmedModel& trimmed, exporter::Target target);

// What a plan can change of a model's bytes in the target's format.
trim::ModelBytes bytes_for(
    const model::ModelReader& reader,
    exporter::Target target,
    const trim::ModelBytesOptions& options);

}  // namespace fettle::cli
