// SPDX-License-Identifier: Apache-2.0
#include "tune/part/trainable_part.h"

namespace fettle::tune {

std::int64_t TrainablePart::trainable_weights(std::int64_t layers) const {
  std::int64_t total = trained_globals();
  for (std::int64_t l = 0; l < layers; ++l) total += trained_weights(l);
  return total;
}

}  // namespace fettle::tune
