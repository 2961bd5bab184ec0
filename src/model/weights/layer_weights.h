// SPDX-License-Identifier: Apache-2.0
// The tensors of one layer as the forward pass takes them, on the compute
// device: dense, in the compute type, or still packed (packed_layer.h).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/args.h"

namespace fettle::model {

class PackedLayer;

// A gated MLP's weights, neuron-major: row k of each matrix belongs to
// intermediate dimension k, so a neuron is three rows of H values.
struct Mlp {
  at::Tensor gate_up;  // [2I, H], gate rows then up rows
  at::Tensor down;     // [I, H], down_proj transposed
  kernels::Activation activation = kernels::Activation::kSilu;
  bool defined() const { return gate_up.defined(); }
};

// All experts of a layer in one buffer each. With offsets o, expert e owns rows
// [o[e], o[e+1]) of `down`, and rows [2 o[e], 2 o[e+1]) of `gate_up`: its gate
// rows, then its up rows.
struct ExpertBank {
  std::vector<std::int64_t> offsets;  // [E + 1]
  at::Tensor gate_up;                 // [2S, H], S = offsets.back()
  at::Tensor down;                    // [S, H]
  at::Tensor gate_up_bias;            // [2S], rows as gate_up's, or undefined
  at::Tensor constant;                // [E, H], or undefined
  kernels::Activation activation = kernels::Activation::kSilu;

  std::int64_t size() const {
    return static_cast<std::int64_t>(offsets.size()) - 1;
  }
  std::int64_t width(std::int64_t e) const {
    return offsets[e + 1] - offsets[e];
  }
  // Of expert e, [2I].
  at::Tensor gate_up_bias_of(std::int64_t e) const {
    return gate_up_bias.narrow(0, 2 * offsets[e], 2 * width(e));
  }
};

// Undefined where the model has none. N heads of D (queries and keys) and Dv
// (values), Nkv heads of keys and values. Under MLA D = Dn + R, of which the
// last R are rotated; Lq and L are the widths of the latents.
struct AttentionWeights {
  at::Tensor q_proj;          // [N D, H]
  at::Tensor q_bias;          // [N D]
  at::Tensor k_proj, v_proj;  // [Nkv D, H]
  at::Tensor k_bias, v_bias;  // [Nkv D]
  at::Tensor o_proj;          // [H, N Dv]
  at::Tensor o_bias;          // [H]
  at::Tensor q_norm, k_norm;  // [D], or [N D] and [Nkv D] over all heads
  at::Tensor gate;            // [N Dv, H]
  at::Tensor sinks;           // [N]
  // MLA
  at::Tensor q_a_proj;   // [Lq, H]
  at::Tensor q_a_bias;   // [Lq]
  at::Tensor q_a_norm;   // [Lq]
  at::Tensor q_b_proj;   // [N D, Lq]
  at::Tensor kv_a_proj;  // [L + R, H]
  at::Tensor kv_a_bias;  // [L + R]
  at::Tensor kv_a_norm;  // [L]
  at::Tensor kv_b_proj;  // [N (Dn + Dv), L]
};

struct LayerWeights {
  // All [H]; see weight_roles.h. Undefined where the model has none.
  at::Tensor input_norm, attention_out_norm;
  at::Tensor post_attention_norm, mlp_out_norm;
  at::Tensor dense_out_norm, experts_norm, experts_out_norm;
  at::Tensor layer_scalar;  // [1]
  AttentionWeights attention;
  Mlp dense;                     // of a dense layer, or beside the experts
  at::Tensor router;             // [E, H], fp32
  at::Tensor router_correction;  // [E], fp32, or undefined
  at::Tensor router_bias;        // [E], fp32, added to logits, or undefined
  at::Tensor router_norm;        // [H], fp32, or undefined
  at::Tensor expert_scale;       // [E], fp32, or undefined
  std::vector<std::int64_t> condensers;  // experts of every token, ascending
  ExpertBank experts;
  Mlp shared;                // or undefined
  at::Tensor shared_router;  // [1, H], or undefined
  // Matrices that have no tensor above; or null.
  std::shared_ptr<const PackedLayer> packed;

  std::int64_t bytes() const;  // of all defined tensors and what is packed
};

// What stands outside the layers.
struct GlobalWeights {
  at::Tensor embed_tokens;  // [V, H]
  at::Tensor final_norm;    // [H]
  at::Tensor lm_head;       // [V, H]; the embeddings when tied
};

}  // namespace fettle::model
