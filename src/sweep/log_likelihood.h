// SPDX-License-Identifier: Apache-2.0
// Log-likelihoods of continuations, by sweeps: all continuations are packed as
// independent sequences, and those whose last token alone differs are one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "core/progress.h"
#include "model/causal_lm.h"
#include "model/layers/token_batch.h"
#include "sweep/evaluate.h"

namespace fettle::sweep {

// What a model is asked: the sequences that it reads, and which tokens are to
// be predicted at which of their positions.
class Continuations {
 public:
  // Adds `ids`, whose last `scored` tokens count; the model reads at most
  // `most` tokens of it, the last ones. `scored` lies in [1, most], and `ids`
  // holds a token more.
  void add(
      const std::vector<std::int32_t>& ids,
      std::int64_t scored,
      std::int64_t most);

  // For planning; distinct.
  const std::vector<model::Sequence>& sequences() const { return sequences_; }
  std::int64_t size() const { return static_cast<std::int64_t>(asked_.size()); }

  // One of those that were added: the tokens that follow sequence's last
  // positions.
  struct Asked {
    std::size_t sequence;
    std::vector<std::int32_t> targets;
  };
  const std::vector<Asked>& asked() const { return asked_; }

 private:
  std::vector<model::Sequence> sequences_;
  std::map<std::vector<std::int32_t>, std::size_t> known_;
  std::vector<Asked> asked_;
};

// The sum of the log-probabilities of each one's tokens, in the order in which
// they were added; where the sweep's data is divided, each rank reads the
// sequences of its shards. Throws Stopped when asked to stop.
std::vector<double> log_likelihoods(
    model::CausalLm& model,
    const Continuations& continuations,
    const EvalOptions& options,
    Reporter& reporter);

}  // namespace fettle::sweep
