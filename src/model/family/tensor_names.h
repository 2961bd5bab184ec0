// SPDX-License-Identifier: Apache-2.0
// How the names of a language model's tensors begin, which may be part of a
// larger model (text_part.h).
#pragma once

#include <string>

namespace fettle::model {

struct TensorNames {
  std::string body = "model.";  // of embeddings, layers and the final norm
  std::string head = {};        // before "lm_head."
  bool operator==(const TensorNames&) const = default;
};

}  // namespace fettle::model
