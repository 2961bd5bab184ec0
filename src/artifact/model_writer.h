// SPDX-License-Identifier: Apache-2.0
// Writes a model folder in Fettle's own form: every expert by its own 2-D
// tensors at its real width, unless other loaders of the family find stacks
// alone and could load the model; config.json, companions and manifest. Tensors
// are streamed in canonical order; nothing is held.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "artifact/carried_copy.h"
#include "artifact/manifest.h"
#include "core/progress.h"
#include "io/checkpoint_writer.h"
#include "io/safetensors.h"
#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/model_reader.h"

namespace fettle::artifact {

struct ModelWriterInput {
  const model::ModelReader& source;  // companions, carried tensors
  const model::ModelConfig& config;  // of the model to write
  // How one tensor lies on disk: headers are written before any tensor.
  model::WeightForms form;
  // The tensor, [weight_shape] in its type, or the bytes of a packed one, or of
  // one in blocks the bytes of its codes and then of its scales; on the CPU.
  // Called in order.
  std::function<at::Tensor(const model::WeightId&)> tensor;
  StageRecord record = {};
  Mtp mtp = Mtp::kAuto;
  std::uint64_t shard_bytes = io::kShardBytes;
  std::string label = {};        // of the progress shown, such as "trim"
  Reporter* reporter = nullptr;  // null: silent
};

// What config.json says of how the weights are stored.
enum class StoredAs {
  kPlain,
  kPacked,     // by Fettle: in the key that other loaders refuse the model by
  kAsInSource  // what the source's config.json says
};

// Writes config.json. `carried`: what the model keeps of its source beside its
// weights.
void write_config(
    const std::filesystem::path& folder,
    const model::ModelConfig& config,
    StoredAs stored,
    const CarriedCopy& carried);

// Writes into `folder`, which exists (an AtomicDirectory's path). Files of
// weights are named model*, packed* where weights are packed, and fettle* where
// the family's own keys can't describe it (see io/checkpoint_writer.h).
// Throws UserError of the stage `label` when a tensor holds NaN or infinity,
// InternalError when it has not the shape or type declared.
void write_model(
    const ModelWriterInput& input, const std::filesystem::path& folder);

// A model's size, before or after a stage.
struct ModelSize {
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;
  std::int64_t bytes = 0;          // of all tensors
  std::int64_t carried_bytes = 0;  // those that are no weights of the model
  std::int64_t experts = 0;
  std::int64_t neurons = 0;  // sum of the experts' widths
  std::int64_t min_width = 0;
  double median_width = 0;
  std::int64_t max_width = 0;
  std::int64_t zero_width = 0;  // experts without a neuron

  Json to_json() const;
};

// The size of a model of `config` whose tensors lie as `form` says, beside
// which `carried_bytes` are carried.
ModelSize model_size(
    const model::ModelConfig& config,
    const model::WeightForms& form,
    std::int64_t carried_bytes = 0);

// The size of a model as it lies in its folder.
ModelSize stored_size(const model::ModelReader& reader);

// The tensors of a checkpoint that hold a weight: one, or of a weight in blocks
// codes and scales.
std::vector<io::TensorSpec> tensor_specs(
    const model::ModelConfig& config,
    const model::WeightId& id,
    const model::WeightForm& form);

// The one tensor of a weight that is not in blocks.
io::TensorSpec tensor_spec(
    const model::ModelConfig& config,
    const model::WeightId& id,
    const model::WeightForm& form);

// Bytes of these tensors.
std::int64_t weight_bytes(
    const model::ModelConfig& config,
    const model::WeightId& id,
    const model::WeightForm& form);

}  // namespace fettle::artifact
