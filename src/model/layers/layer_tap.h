// SPDX-License-Identifier: Apache-2.0
// What the inside of a layer shows to those who score or train it. Taps
// for different experts may be called at the same time from several threads;
// calls for one expert of one layer come one at a time and in a fixed order.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "model/family/weight_table.h"
#include "model/layers/expert_runs.h"

namespace fettle::model {

struct RoutingView {
  const at::Tensor& x;         // [N, H] input of the experts
  const at::Tensor& logits;    // [N, E] fp32, with the router's bias
  const at::Tensor& probs;     // [N, E] fp32, full softmax or sigmoid
  const at::Tensor& selected;  // [N, K] int64
  const at::Tensor& weights;   // [N, K] fp32, mixing weights
};

// Tokens of one micro-batch that chose expert `expert`, in token order.
struct ExpertView {
  std::int64_t expert;
  at::Tensor tokens;   // [n] int64, row in the micro-batch
  at::Tensor x;        // [n, H] the expert's input
  at::Tensor gate_up;  // [n, P I] before the activation, with biases
  at::Tensor h;        // [n, I] activation entering down_proj, unweighted
  at::Tensor y;        // [n, H] down_proj h, unweighted, without constant
  at::Tensor weight;   // [n] mixing weights
};

struct ExpertGradView {
  std::int64_t expert;
  at::Tensor x;          // [n, H]
  at::Tensor h;          // [n, I]
  at::Tensor dh;         // [n, I] dL/dh, mixing weight included by chain rule
  at::Tensor d_gate_up;  // [n, P I]
  at::Tensor dy;         // [n, H] dL/dy of the unweighted output y
  at::Tensor weight;     // [n] mixing weights, as they multiplied y

  // Of a neuron: gate and up, or up alone.
  std::int64_t inputs() const {
    return width() > 0 ? d_gate_up.size(1) / width() : 0;
  }
  std::int64_t width() const { return h.size(1); }
  // [n, I] each, views of d_gate_up. Gate's is undefined where there is none.
  at::Tensor d_gate() const;
  at::Tensor d_up() const;
};

// The same of all experts of a run: rows of all of them after each other.
struct RunGradView {
  const ExpertRun& run;
  const Dispatch& dispatch;
  const at::Tensor& x;
  const at::Tensor& h;
  const at::Tensor& dh;
  const at::Tensor& d_gate_up;
  const at::Tensor& dy;
  const at::Tensor& weight;
};

// Whether the backward pass shows a tap the factors of the gradient of a weight
// of this role, so that nobody needs the gradient itself.
bool is_tapped(Role role);

class LayerTap {
 public:
  virtual ~LayerTap() = default;
  virtual bool wants_experts() const { return false; }
  virtual bool wants_expert_gradients() const { return false; }
  // Must also be true in the forward pass, which builds the graph.
  virtual bool wants_projection_gradients() const { return false; }
  virtual void on_routing(std::int64_t, const RoutingView&) {}
  virtual void on_expert(std::int64_t, const ExpertView&) {}
  virtual void on_expert_gradient(std::int64_t, const ExpertGradView&) {}
  // Of experts that are computed together; shows each that has rows, unless a
  // tap knows a better way.
  virtual void on_run_gradient(std::int64_t layer, const RunGradView& view);
  // The input [n, in] of a projection of the attention, of the shared expert's
  // or of a dense layer's MLP (gate stands for gate and up).
  virtual void on_projection(
      std::int64_t /*layer*/, Role, const at::Tensor& /*x*/) {}
  // A projection of the attention, y = x W^T: its input [n, in] and dL/dy [n,
  // out], so that W's gradient is dy^T x.
  virtual void on_projection_gradient(
      std::int64_t /*layer*/,
      Role,
      const at::Tensor& /*x*/,
      const at::Tensor& /*dy*/) {}
  // Gradient of the loss with respect to the sum over experts of weight times
  // output [N, H]; comes before the gradients of the experts, where wanted.
  virtual void on_output_gradient(std::int64_t, const at::Tensor&) {}
  // Gradient of the loss with respect to the router's logits [N, E], and the
  // router's input [N, H].
  virtual void on_router_gradient(
      std::int64_t, const at::Tensor& /*x*/, const at::Tensor& /*d_logits*/) {}
};

}  // namespace fettle::model
