// SPDX-License-Identifier: Apache-2.0
// What the measured options of a layer's weights cost, in nats a token.
#pragma once

#include "quant/errors.h"

namespace fettle::quant {

// A weight whose rows have no price counts by the share of its output that it
// loses: as much as the same share of its MLP's down projection, else as the
// mean weight of its layer does.
class LayerNats {
 public:
  // `layer` must outlive it. `otherwise`: what the mean weight counts as where
  // no row of the layer has a price.
  explicit LayerNats(const LayerErrors& layer, double otherwise = 0);

  // Nats of losing the whole output of the layer's mean weight.
  double mean() const { return mean_; }

  double of(const MeasuredWeight& weight, const MeasuredOption& option) const;

 private:
  // Nats of losing the whole output, by the option that lost most; 0: unknown.
  static double whole(const MeasuredWeight& weight);

  const LayerErrors& layer_;
  double mean_ = 0;
};

// The largest mean of the layers: what counts in one that has no prices, such
// as a layer of a mixer alone.
double dearest_mean(const std::vector<LayerErrors>& layers);

}  // namespace fettle::quant
