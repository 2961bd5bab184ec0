// SPDX-License-Identifier: Apache-2.0
// Sums the moments of one layer's experts while tokens pass through it.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/layers/layer_tap.h"
#include "sweep/observer.h"
#include "trim/ridge.h"

namespace fettle::trim {

class ExpertMoments : public model::LayerTap {
 public:
  // `widths` [E] are those of the experts. The sums are fp32 on `device`.
  ExpertMoments(std::vector<std::int64_t> widths, at::Device device);

  // Keeps the moments of `expert`, once it is hit.
  void want(std::int64_t expert) { wanted_[expert] = true; }

  bool wants_experts() const override { return true; }
  // Different experts may be shown at the same time.
  void on_expert(std::int64_t layer, const model::ExpertView& view) override;

  // As an observer's; behind the last visit end_sums() takes what was added up.
  void for_each_sum(const sweep::SumVisitor& visit);
  void end_sums();

  std::int64_t tokens(std::int64_t expert) const { return tokens_[expert]; }
  // Sum over tokens of (p h)^2, mean over the neurons of all experts.
  double mean_energy() const;
  // The moments, on the CPU, and forgets them. The expert was wanted, and hit.
  Moments take(std::int64_t expert);

 private:
  struct Sums {
    at::Tensor second, first, weight;
  };
  Sums zeros(std::int64_t expert) const;

  std::vector<std::int64_t> widths_;
  std::vector<bool> wanted_;
  std::vector<std::int64_t> tokens_;
  std::vector<Sums> sums_;
  at::Tensor energy_;  // [E] fp64
  at::Tensor counts_;  // [E] int64: tokens_, while sums are shown
};

}  // namespace fettle::trim
