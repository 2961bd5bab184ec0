// SPDX-License-Identifier: Apache-2.0
// Counts how often the routers choose each expert.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "core/json.h"
#include "sweep/observer.h"

namespace fettle::tune {

class ChoiceCounts : public sweep::Observer {
 public:
  explicit ChoiceCounts(std::int64_t layers)
      : counts_(static_cast<std::size_t>(layers)) {}

  void begin_layer(
      sweep::Pass pass,
      std::int64_t layer,
      model::LayerWeights& weights) override;
  void on_routing(std::int64_t layer, const model::RoutingView& view) override;
  void for_each_sum(
      sweep::Pass pass,
      std::int64_t layer,
      const sweep::SumVisitor& visit) override;

  // A row a layer of the number of tokens that chose each expert; an empty one
  // for a layer without a router.
  Json to_json() const;

 private:
  std::vector<at::Tensor> counts_;  // [E] int64 on the model's device
};

}  // namespace fettle::tune
