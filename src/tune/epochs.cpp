// SPDX-License-Identifier: Apache-2.0
#include "tune/epochs.h"

#include <algorithm>

namespace fettle::tune {

bool has_target(const text::PackedSequence& sequence) {
  return std::ranges::any_of(sequence.labels, [](const std::int32_t label) {
    return label != text::kMasked;
  });
}

std::int64_t steps_of_epochs(
    text::Mixture& train, double epochs, const TuneOptions& options) {
  const Json cursor = train.state();
  const auto wanted = epochs * static_cast<double>(train.samples()) +
                      static_cast<double>(train.samples_drawn());
  std::int64_t sequences = 0;
  while (static_cast<double>(train.samples_drawn()) < wanted) {
    if (has_target(train.next())) ++sequences;
  }
  train.restore(cursor);
  const std::int64_t per_step = options.tokens_per_step / options.seq_len;
  return std::max<std::int64_t>((sequences + per_step - 1) / per_step, 1);
}

}  // namespace fettle::tune
