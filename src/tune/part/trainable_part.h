// SPDX-License-Identifier: Apache-2.0
// One kind of trainable parameter. A method of tuning is a composition of
// parts; the trainer knows parts only by this interface. In a step a part is
// prepared, watches the backward sweep to collect its gradient (Observer), and
// then updates layer by layer when update() is called; whenever a layer is
// loaded, patch() puts the current values in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "artifact/tensor_file.h"
#include "core/json.h"
#include "core/progress.h"
#include "model/weights/layer_weights.h"
#include "sweep/observer.h"

namespace fettle::tune {

// Which of the sequences that training will see next a probe passes over.
struct ProbeRequest {
  std::int64_t sequences = 0;
  // In one sweep, so that a layer's sums are complete at its end_layer; else in
  // sweeps of a step's size.
  bool at_once = false;
  // Each sequence is a micro-batch by itself.
  bool by_sequence = true;
};
using Probe =
    std::function<void(sweep::Observer& observer, const ProbeRequest& request)>;

struct PrepareInput {
  std::int64_t step = 0;  // the step about to be made, from 0
  // Shows the forward pass alone, or the backward pass of the loss summed over
  // tokens.
  const Probe& forward_probe;
  const Probe& gradient_probe;
  Reporter& reporter;
};

struct UpdateInput {
  std::int64_t step = 0;
  double gradient_scale = 1.0;  // of clipping
};

class TrainablePart : public sweep::Observer {
 public:
  // Names the part in files, such as "neurons".
  virtual std::string_view name() const = 0;

  // Called before every step: chooses what to train where that is due. The
  // same state and data must lead to the same choice.
  virtual void prepare(const PrepareInput& input) = 0;
  // Whether the step prepared last trains anything in `layer`.
  virtual bool trains(std::int64_t layer) const = 0;
  // How many weights of `layer` it has chosen to train.
  virtual std::int64_t trained_weights(std::int64_t layer) const = 0;
  // How many weights it trains in `layers` layers and outside of all layers.
  std::int64_t trainable_weights(std::int64_t layers) const;

  // Puts the current values into a loaded layer. Idempotent.
  virtual void patch(
      std::int64_t layer, model::LayerWeights& weights) const = 0;

  // Seconds that threads have spent reading and writing states on disk, in all
  // calls, summed over threads. They work beside the arithmetic.
  virtual double state_io_seconds() const { return 0.0; }
  // Sum of squares of the layer's gradient in the last backward sweep; 0 where
  // it trains nothing.
  virtual double gradient_norm_squared(std::int64_t layer) const = 0;
  virtual void update(std::int64_t layer, const UpdateInput& input) = 0;
  // Called instead of updates after a step without a finite loss or gradient:
  // nothing that it gathered may reach the next.
  virtual void forget_step() {}

  // The functions above, for weights outside the layers: embeddings, final
  // norm, head. To train embeddings, the backward sweep passes all layers.
  virtual bool trains_embeddings() const { return false; }
  virtual std::int64_t trained_globals() const { return 0; }
  virtual void patch_globals(model::GlobalWeights&) const {}
  virtual double global_gradient_norm_squared() const { return 0.0; }
  virtual void update_globals(const UpdateInput&) {}

  // Where ranks divide states: the one that has the gradient of `layer` (-1:
  // of what is outside the layers). Others are not asked for its norm.
  virtual std::int64_t owner(std::int64_t /*layer*/) const { return 0; }
  // Whether other ranks have tensors of save_state(), which are then of the
  // meta device here.
  virtual bool divides_state() const { return false; }

  // Rate of a step, for the record.
  virtual double learning_rate(std::int64_t step) const = 0;

  // All that a later step depends on, under names that begin with name().
  virtual void save_state(artifact::TensorMap& into) const = 0;
  // Takes the tensors over; later steps change them in place. Throws UserError
  // on a tensor that is missing or doesn't fit the model.
  virtual void load_state(const artifact::TensorMap& from) = 0;

  // The values trained, as an adapter holds them (adapter.h).
  virtual void save_adapter(artifact::TensorMap& into) const = 0;
  // Values too many for memory, written to a file of the folder; its name.
  virtual std::optional<std::string> save_large(
      const std::filesystem::path& /*folder*/) const {
    return std::nullopt;
  }
  // Files of the output folder that a saved state needs beside its tensors.
  virtual std::vector<std::string> state_files(
      const artifact::TensorMap& /*state*/) const {
    return {};
  }
  // What the part keeps in the output folder that is no part of the result.
  virtual std::vector<std::string> work_files() const { return {}; }
};

}  // namespace fettle::tune
