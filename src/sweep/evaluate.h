// SPDX-License-Identifier: Apache-2.0
// Held-out loss of a model, file by file, and how far it is from a teacher.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "core/progress.h"
#include "model/causal_lm.h"
#include "model/layers/token_batch.h"
#include "sweep/sweep.h"

namespace fettle::sweep {

// A named set of sequences: one file's windows.
struct EvalSet {
  std::string name;
  std::vector<model::Sequence> sequences;
};

struct EvalOptions {
  // Tokens of one micro-batch.
  std::int64_t micro_batch_tokens = 4096;
  // Tokens of one sweep; more read the weights less often.
  std::int64_t chunk_tokens = 65536;
  SweepOptions sweep;
  // Set from elsewhere to end before the next sweep, by Stopped; null: never.
  const std::atomic<bool>* stop_requested = nullptr;
};

// An evaluation that was asked to stop ends so.
class Stopped : public std::exception {
 public:
  const char* what() const noexcept override { return "stopped"; }
};

struct EvalScore {
  std::string name;
  std::int64_t tokens = 0;  // scored
  double nll = 0;           // mean over them, in nats
  double perplexity = 0;
  std::optional<double> kl;    // mean KL(teacher || model), in nats
  std::optional<double> top1;  // share of tokens ranked first by both
};

struct EvalResult {
  std::vector<EvalScore> sets;
  double tokens_per_second = 0;  // scored tokens of all sets
};

// The score over all sets together, each token counted once.
EvalScore over_all(const std::vector<EvalScore>& sets);

// Throws UserError when a set has no scored token, or when teacher and model
// have different vocabularies, Stopped when asked to stop. `teacher` may be
// null.
EvalResult evaluate(
    model::CausalLm& model,
    model::CausalLm* teacher,
    const std::vector<EvalSet>& sets,
    const EvalOptions& options,
    Reporter& reporter);

}  // namespace fettle::sweep
