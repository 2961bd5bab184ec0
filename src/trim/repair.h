// SPDX-License-Identifier: Apache-2.0
// What makes up for cut neurons.
#pragma once

#include <cstdint>
#include <string_view>

#include "store/activation_store.h"
#include "sweep/micro_batches.h"

namespace fettle::trim {

// constant: the mean output over the calibration tokens of what an expert lost
// is added to its output before the router weighs it. ridge: each down_proj is
// fitted anew to its expert's whole output (see ridge.h). Both: fitted
// together. joint: all experts of a layer are fitted together to the whole
// layer's output behind untrimmed layers; best where whole experts go, and
// takes the square of a layer's kept neurons in memory.
enum class Repair { kNone, kConstant, kRidge, kRidgeConstant, kJoint };

std::string_view name_of(Repair repair);  // "ridge+constant"
bool adds_constants(Repair repair);
bool fits_down(Repair repair);  // and so needs calibration data

struct RidgeOptions {
  // Relative to the mean square of a weighted activation times the tokens of a
  // mean expert of the layer: an expert that few tokens chose is held the
  // closer to its own weights.
  double lambda = 1e-2;
  // Whether a layer is fitted to what it does after the trimmed layers below,
  // or after the whole ones.
  bool trimmed_inputs = false;
  // Whether a constant output of each expert is fitted with it.
  bool constant = false;
  // Fit all experts of a layer together; the inputs are the trimmed ones then,
  // and there is no constant.
  bool joint = false;
  store::ActivationStoreOptions activations = {};
  sweep::Division division = {};  // how the data is divided among ranks
};

}  // namespace fettle::trim
