// SPDX-License-Identifier: Apache-2.0
// The tensors of one layer as the forward pass takes them, on the compute
// device: dense, in the compute type, or still packed (packed_layer.h).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace fettle::model {

class PackedLayer;

// A SwiGLU block's weights, neuron-major: row k of each matrix belongs to
// intermediate dimension k, so a neuron is three rows of H values.
struct Mlp {
  at::Tensor gate_up;  // [2I, H], gate rows then up rows
  at::Tensor down;     // [I, H], down_proj transposed
  bool defined() const { return gate_up.defined(); }
};

// All experts of a layer in one buffer each. With offsets o, expert e owns rows
// [o[e], o[e+1]) of `down`, and rows [2 o[e], 2 o[e+1]) of `gate_up`: its gate
// rows, then its up rows.
struct ExpertBank {
  std::vector<std::int64_t> offsets;  // [E + 1]
  at::Tensor gate_up;                 // [2S, H], S = offsets.back()
  at::Tensor down;                    // [S, H]
  at::Tensor constant;                // [E, H], or undefined

  std::int64_t size() const {
    return static_cast<std::int64_t>(offsets.size()) - 1;
  }
  std::int64_t width(std::int64_t e) const {
    return offsets[e + 1] - offsets[e];
  }
};

struct AttentionWeights {
  at::Tensor q_proj, q_bias, k_proj, k_bias, v_proj, v_bias;
  at::Tensor o_proj, o_bias;
  at::Tensor q_norm, k_norm;
  // MLA
  at::Tensor q_a_proj, q_a_bias, q_a_norm, q_b_proj;
  at::Tensor kv_a_proj, kv_a_bias, kv_a_norm, kv_b_proj;
};

struct LayerWeights {
  at::Tensor input_norm;           // [H]
  at::Tensor post_attention_norm;  // [H]
  AttentionWeights attention;
  Mlp dense;                     // of a dense layer
  at::Tensor router;             // [E, H], fp32
  at::Tensor router_correction;  // [E], fp32, or undefined
  at::Tensor router_bias;        // [E], fp32, added to logits, or undefined
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
