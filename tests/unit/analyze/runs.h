// SPDX-License-Identifier: Apache-2.0
// Analyses of tiny models, and how two are compared.
#pragma once

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "../artifact/tiny_model.h"
#include "analyze/analyze.h"

namespace fettle::analyze::testing {

// All that can be summed over chunks.
inline const std::vector<std::string> kAll{
    "mask_fisher",
    "weight_fisher",
    "grad_abs",
    "heapr",
    "camera",
    "wanda",
    "magnitude",
    "random",
    "reap",
    "frequency",
    "gate_mass",
    "expert_fisher"};

inline artifact::ScoreFile run(
    const fettle::testing::TinyModel& tiny,
    const std::vector<model::Sequence>& data,
    const AnalyzeOptions& options) {
  model::CausalLm model(tiny.path(), {});
  return analyze(model, data, options);
}

// Largest relative difference of any score; exact where `bound` is 0.
inline void require_equal(
    const artifact::ScoreFile& a, const artifact::ScoreFile& b, double bound) {
  REQUIRE(a.tokens == b.tokens);
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    const auto& x = a.layers[l];
    const auto& y = b.layers[l];
    REQUIRE(x.widths == y.widths);
    if (x.widths.empty()) continue;  // no experts
    REQUIRE(x.tokens.equal(y.tokens));
    for (const auto scores :
         {&artifact::LayerScores::neuron, &artifact::LayerScores::expert}) {
      for (const auto& [name, values] : x.*scores) {
        CAPTURE(l, name);
        const at::Tensor other = (y.*scores).at(name);
        if (bound == 0) {
          REQUIRE(values.equal(other));
        } else {
          REQUIRE(at::allclose(
              values, other, bound, bound * values.max().item<double>()));
        }
      }
    }
    REQUIRE(at::allclose(x.mean_h, y.mean_h, bound, bound));
  }
}

}  // namespace fettle::analyze::testing
