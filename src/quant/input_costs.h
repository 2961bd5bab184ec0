// SPDX-License-Identifier: Apache-2.0
// What rounding an expert's gate and up projections costs at the expert's
// output, where the price of each channel is known. The activation stands in
// between: at few bits it is too crooked for its slope to tell.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "artifact/row_prices.h"
#include "model/weights/model_reader.h"
#include "quant/hessians.h"
#include "quant/layer_quantizer.h"

namespace fettle::quant {

struct InputCosts {
  const model::ModelReader& reader;
  const artifact::RowPrices& prices;
  const Hessian& hessian;  // with a sample
  const std::vector<WeightScheme>& weights;
  at::Device device;
};

// Sets the cost of gate and up where both were rounded by one scheme: each has
// half of what both lose together, summed over all tokens as the sample tells.
// `results` are of `costs.weights`, in their order. Nothing changes without a
// sample, or without prices of the expert's output.
void price_inputs(
    const InputCosts& costs, std::vector<QuantizedWeight>& results);

}  // namespace fettle::quant
