// SPDX-License-Identifier: Apache-2.0
// How the units of sparse tuning are chosen and updated.
#pragma once

#include <cstdint>

#include "tune/part/adamw.h"
#include "tune/part/schedule.h"
#include "tune/part/state_owners.h"
#include "tune/sparse/selection.h"

namespace fettle::tune {

// What a chosen unit is worth when some are to be dropped.
enum class DropBy {
  kDelta,   // ||w - w0||
  kMoment,  // sum of |m| / sqrt(v) |w - w0|: still moving, and far from home
};

struct SparseOptions {
  double frac = 0.05;  // of all units
  Scope scope = Scope::kGlobal;
  std::int64_t score_sequences = 32;
  std::int64_t reselect_every = 0;  // steps; 0: never
  double drop_fraction = 0.3;       // at first; see cosine_fall()
  DropBy drop_by = DropBy::kDelta;
  // An expert whose share of the mixing weights in a step is below this part of
  // its layer's mean rests: its units are not updated.
  double rest_below = 0.0;
  Schedule schedule = {};
  AdamWOptions adamw = {};
  StateOwners owners = {};
};

}  // namespace fettle::tune
