// SPDX-License-Identifier: Apache-2.0
// One training or evaluation text as tokens, and how long ones are cut.
#pragma once

#include <cstdint>
#include <vector>

namespace fettle::text {

// The label of a token that doesn't count for the loss.
inline constexpr std::int32_t kMasked = -100;

struct Sample {
  std::vector<std::int32_t> ids;  // (T)
  // (T), not shifted: labels[t] is ids[t] where the prediction of token t
  // counts, kMasked elsewhere. Nothing ever predicts token 0.
  std::vector<std::int32_t> labels;
  // An answer with what it answers: packing keeps it in one piece. Running text
  // may be cut anywhere.
  bool whole = false;
  bool ended = false;  // the end token was added to running text
};

// Cuts a sample into consecutive windows of at most `seq_len` >= 2 tokens. A
// window's first token is not scored, so a window of one token is dropped.
// Throws UserError when `seq_len` is smaller.
std::vector<Sample> windows(const Sample& sample, std::int64_t seq_len);

}  // namespace fettle::text
