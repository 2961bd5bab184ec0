// SPDX-License-Identifier: Apache-2.0
// A method of tuning is a list of trainable parts, and methods may be joined.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "model/weights/model_reader.h"
#include "tune/options/tune_options.h"
#include "tune/part/state_owners.h"
#include "tune/part/trainable_part.h"

namespace fettle::tune {

using Parts = std::vector<std::unique_ptr<TrainablePart>>;

struct PartInput {
  const TuneOptions& options;
  const model::ModelReader& reader;  // outlives the parts
  at::Device device;
  std::filesystem::path folder;  // where parts may keep large states
  StateOwners owners = {};
};

// Bytes on disk beside the model's own.
struct DiskUse {
  double held = 0.0;     // at most, while the run lasts
  double read = 0.0;     // in a step
  double written = 0.0;  // in a step
};

// Bytes of memory by place.
struct PartBytes {
  double ram = 0.0;
  double device = 0.0;  // 0 where the CPU computes
  // Among these, moments and gradients that ranks divide by layers.
  double divided_ram = 0.0;
  double divided_device = 0.0;

  double total() const { return ram + device; }
  PartBytes& operator+=(const PartBytes& other);
};

// Bytes that lie where the layers compute, and how many of them are divided.
PartBytes at_work(double bytes, at::Device device, double divided = 0.0);

// What states that are saved from `bytes` of memory take on disk.
DiskUse saved_from_memory(double bytes);

struct Method {
  const char* name;
  const char* help;
  // The roles whose weights it writes: no two methods may write one role's.
  std::vector<model::Role> (*roles)(
      const TuneOptions& options, const model::ModelConfig& config);
  Parts (*make)(const PartInput& input);
  // Bytes that the parts reach: masters, moments, gradients, the update's
  // working set. `device` is where the layers compute.
  PartBytes (*bytes)(
      const TuneOptions& options,
      const model::ModelConfig& config,
      at::Device device);
  // Null: its states are saved from memory alone.
  DiskUse (*disk)(
      const TuneOptions& options, const model::ModelConfig& config) = nullptr;
};

// Methods that exist.
std::span<const Method> methods();

// Throws UserError when options.method names one that does not exist, one
// twice, or two that write the same weights.
void check_methods(
    const TuneOptions& options, const model::ModelConfig& config);

// The parts of options.method, which check_options has seen.
Parts make_parts(const PartInput& input);

// Whether embeddings or the head change, so that they must stay in memory.
bool trains_globals(
    const TuneOptions& options, const model::ModelConfig& config);

// At most, of one of so many ranks.
PartBytes part_bytes(
    const TuneOptions& options,
    const model::ModelConfig& config,
    at::Device device,
    std::int64_t ranks = 1);

// At most, of what a step adds up of a layer, or outside all layers.
double layer_gradient_bytes(
    const TuneOptions& options, const model::ModelConfig& config);

// For all parts. The state is on disk twice while the next one is written.
DiskUse part_disk_use(
    const TuneOptions& options, const model::ModelConfig& config);

}  // namespace fettle::tune
