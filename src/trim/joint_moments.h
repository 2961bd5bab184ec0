// SPDX-License-Identifier: Apache-2.0
// The normal equations of all kept neurons of a layer at once, summed while
// tokens pass through it: what a fit of all experts together to the layer's
// output needs.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/layers/layer_tap.h"
#include "sweep/observer.h"

namespace fettle::trim {

class JointMoments : public model::LayerTap {
 public:
  // `widths` are the experts', S neurons in all. The sums are on `device`.
  JointMoments(
      const std::vector<std::int64_t>& widths,
      std::int64_t hidden,
      at::Device device);

  bool wants_experts() const override { return true; }
  // Different experts may be shown at the same time.
  void on_expert(std::int64_t layer, const model::ExpertView& view) override;
  // `error` [N, H]: what the layer's output should be beyond what it was for
  // the micro-batch that the experts were just shown.
  void end_micro_batch(const at::Tensor& error);

  // As an observer's; behind the last visit end_sums() takes what was added up.
  void for_each_sum(const sweep::SumVisitor& visit);
  void end_sums();

  std::int64_t tokens(std::int64_t expert) const { return tokens_[expert]; }
  // Sums over tokens of f f^T [S, S] and f error^T [S, H], f [S] the
  // activations weighted by the router, 0 for experts that a token did not
  // choose. fp32 on the device.
  const at::Tensor& gram() const { return gram_; }
  const at::Tensor& right() const { return right_; }
  // Sum of the squared errors.
  double error() const { return error_; }

 private:
  struct Rows {
    at::Tensor tokens;    // [n] int64
    at::Tensor features;  // [n, I]
  };
  void add_pair(std::int64_t e, std::int64_t f, const at::Tensor& place);
  at::Tensor block(std::int64_t e, std::int64_t f);

  std::vector<std::int64_t> offsets_;
  std::vector<std::int64_t> tokens_;
  std::vector<Rows> rows_;  // of the micro-batch in work
  at::Tensor gram_;
  at::Tensor right_;
  double error_ = 0;
  // tokens_ and error_, while sums are shown.
  at::Tensor counts_, errors_;
};

}  // namespace fettle::trim
