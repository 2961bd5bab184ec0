// SPDX-License-Identifier: Apache-2.0
// The tensors of one layer as the forward pass takes them, on the compute
// device: dense, in the compute type, or still packed (packed_layer.h).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "model/weights/mlp_weights.h"

namespace fettle::model {

class PackedLayer;

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

// A causal convolution of each channel by itself.
struct ConvolutionWeights {
  at::Tensor weight;  // [C, W]
  at::Tensor bias;    // [C], or undefined
};

// Of a layer with a short convolution.
struct ShortConvWeights {
  at::Tensor in;        // [3 H, H]: B, C and u
  at::Tensor in_bias;   // [3 H], or undefined
  at::Tensor out;       // [H, H]
  at::Tensor out_bias;  // [H], or undefined
};

// Of a layer with the gated delta rule; Nk key heads of Dk, Nv value heads of
// Dv. Either the first four are defined or the next two.
struct GatedDeltaWeights {
  at::Tensor qkv;         // [2 Nk Dk + Nv Dv, H]
  at::Tensor gate;        // [Nv Dv, H]
  at::Tensor beta;        // [Nv, H]
  at::Tensor decay;       // [Nv, H]
  at::Tensor qkv_gate;    // [2 Nk Dk + 2 Nv Dv, H], rows grouped by key head
  at::Tensor beta_decay;  // [2 Nv, H], likewise
  at::Tensor log_rate;    // [Nv], fp32
  at::Tensor decay_bias;  // [Nv], fp32
  at::Tensor norm;        // [Dv]
  at::Tensor out;         // [H, Nv Dv]
};

// Of a layer with Mamba-2: N heads of P, G groups of S states. The inner size I
// is N P.
struct MambaWeights {
  at::Tensor in;         // [2 I + 2 G S + N, H]: gate, inputs, B, C, steps
  at::Tensor in_bias;    // [2 I + 2 G S + N], or undefined
  at::Tensor log_rate;   // [N], fp32
  at::Tensor step_bias;  // [N], fp32
  at::Tensor skip;       // [N], fp32
  at::Tensor norm;       // [I]
  at::Tensor out;        // [H, I]
  at::Tensor out_bias;   // [H], or undefined
};

struct LayerWeights {
  // All [H]; see weight_roles.h. Undefined where the layer has none.
  at::Tensor input_norm, attention_out_norm;
  at::Tensor post_attention_norm, mlp_out_norm;
  at::Tensor dense_out_norm, experts_norm, experts_out_norm;
  at::Tensor layer_scalar;  // [1]
  AttentionWeights attention;
  ConvolutionWeights convolution;
  ShortConvWeights short_conv;
  GatedDeltaWeights gated_delta;
  MambaWeights mamba;
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
  // Of a norm: every layer has one.
  at::Device device() const;
};

// What stands outside the layers.
struct GlobalWeights {
  at::Tensor embed_tokens;  // [V, H]
  at::Tensor final_norm;    // [H]
  at::Tensor lm_head;       // [V, H]; the embeddings when tied
};

}  // namespace fettle::model
