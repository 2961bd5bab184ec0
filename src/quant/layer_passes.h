// SPDX-License-Identifier: Apache-2.0
// Passes of the calibration data through a layer, and the quantization of its
// weights by what was seen: of so many experts at once as their moments fit
// into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "model/causal_lm.h"
#include "quant/layer_quantizer.h"
#include "sweep/layer_stream.h"

namespace fettle::quant {

// Weights with one input, as they are quantized together. A weight may
// appear several times, each with a different scheme.
struct Site {
  model::Role role;
  std::int64_t expert = -1;
  std::vector<WeightScheme> weights;
};

// The weights by site, in the order in which sites come first. Weights that are
// kept or have no numbers are left out.
std::vector<Site> group_by_site(
    const model::ModelConfig& config, const std::vector<WeightScheme>& weights);

struct LayerPasses {
  const model::ModelReader& reader;
  const GptqOptions& gptq;
  std::int64_t moment_bytes = 0;
  // Null without data: then there are no passes.
  model::CausalLm* model = nullptr;
  sweep::LayerStream* stream = nullptr;
  // Where ranks divide the data, each quantizes some of the sites.
  ranks::Team team = {};
  // What errors cost, or null.
  const artifact::RowPrices* prices = nullptr;
};

// What is done with the weights of a site, in their order. Called once a site,
// from several threads.
using SiteDone = std::function<void(std::size_t, std::vector<QuantizedWeight>)>;

// Quantizes all sites, or those of this rank, which are of `layer`, or of no
// layer and without data. The stream stays at the layer's inputs. Throws what a
// LayerQuantizer throws.
void quantize_sites(
    const LayerPasses& passes,
    std::int64_t layer,
    const std::vector<Site>& sites,
    const SiteDone& done);

}  // namespace fettle::quant
