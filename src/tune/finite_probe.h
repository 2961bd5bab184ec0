// SPDX-License-Identifier: Apache-2.0
// Finds the first layer in which a forward sweep meets a number that is not
// finite.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "model/causal_lm.h"
#include "model/layers/token_batch.h"
#include "sweep/observer.h"
#include "sweep/sweep.h"

namespace fettle::tune {

class FiniteProbe : public sweep::Observer {
 public:
  bool wants_experts() const override { return true; }
  void on_routing(std::int64_t layer, const model::RoutingView& view) override;
  void on_expert(std::int64_t layer, const model::ExpertView& view) override;

  // The first bad layer, or -1.
  std::int64_t layer() const;

 private:
  void see(std::int64_t layer, const at::Tensor& tensor);

  static constexpr std::int64_t kNone =
      std::numeric_limits<std::int64_t>::max();
  std::atomic<std::int64_t> first_{kNone};
};

// Repeats the forward sweep over `batches`: "in layer 3", or "after the last
// layer with experts". Where the options divide data among ranks, of all ranks'
// batches.
std::string locate_non_finite(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const sweep::SweepOptions& sweep_options);

}  // namespace fettle::tune
