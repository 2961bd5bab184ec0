// SPDX-License-Identifier: Apache-2.0
// What a model does around its attention and MLPs: norms of branches, and
// factors.
#pragma once

namespace fettle::model {

// Of every layer.
struct BlockConfig {
  // What attention and MLPs give passes a norm before it is added.
  bool out_norms = false;
  double residual_multiplier = 1.0;  // of what is added, in both places
  bool layer_scalar = false;         // a layer's output times a stored number
};

// Of the model's two ends.
struct EndsConfig {
  double embedding_multiplier = 1.0;
  bool rounds_embedding_multiplier = false;  // to the type of the embeddings
  // Logits z become z / logits_scaling, and these soft_cap tanh(z / soft_cap).
  double logits_scaling = 1.0;
  double soft_cap = 0.0;  // 0: none
};

}  // namespace fettle::model
