// SPDX-License-Identifier: Apache-2.0
// What a GGUF file says of a model's shape, by the keys that llama.cpp reads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "export/gguf/gguf_file.h"
#include "model/family/model_config.h"

namespace fettle::exporter {

// A family as llama.cpp knows it.
struct GgufFamily {
  std::string_view family;
  std::string_view architecture;
  // Whether the chosen experts' weights are made to sum to one, which the
  // program knows by the architecture; unset: a key says it.
  std::optional<bool> renormalizes = {};
  bool demands_head = false;  // also where it is tied to the embeddings
  // Rotary pairs are neighbours in stored queries and keys.
  bool pairs_rotary = false;
  bool has_dense = false;      // layers before the sparse ones may be dense
  bool counts_shared = false;  // shared experts, of which there must be some
  model::Activation activation = model::Activation::kSilu;
  bool alternates = false;  // every other layer has a window, the first too
  bool has_biases = false;  // of all projections of the attention
  bool names_norm = false;  // the norm before the MLP by the attention
};

struct GgufTolerance {
  // One epsilon for all norms, and whole bounds of YaRN's ramp, as llama.cpp
  // has them.
  bool nearest = false;
};

// Throws UserError where llama.cpp computes something else than this
// configuration says, naming it.
const GgufFamily& gguf_family(
    const model::ModelConfig& config, const GgufTolerance& tolerance = {});

// The keys of a model that gguf_family accepts, without the tokenizer's.
GgufKeys gguf_shape_keys(
    const model::ModelConfig& config,
    const std::string& name,
    std::uint32_t file_type);

}  // namespace fettle::exporter
