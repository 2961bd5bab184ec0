// SPDX-License-Identifier: Apache-2.0
// A small model and data for the tests of the tune stage.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "../temporary_folder.h"
#include "core/json.h"
#include "model/causal_lm.h"
#include "model/layers/token_batch.h"
#include "text/mixture.h"

namespace fettle::tune::testing {

using fettle::TemporaryFolder;

inline constexpr std::int64_t kVocab = 23;
inline constexpr std::int64_t kHidden = 16;
inline constexpr std::int64_t kLayers = 3;

// Three layers: one dense, then two of four experts with widths 6, 0, 4, 6 and
// 5, 3, 6, 2, top-2. Weights are random, in bf16; routers in fp32.
void write_tiny_model(const std::filesystem::path& folder, int seed = 1);

// The same otherwise.
struct TinyModel {
  int seed = 1;
  bool tied = false;  // the head is the embeddings
  std::int64_t vocab = kVocab;
  // A token that gets no chance at all, so that its loss is infinite.
  std::int64_t impossible = -1;
};
void write_tiny_model(
    const std::filesystem::path& folder, const TinyModel& tiny);

// The model in fp32 on the CPU; all layers stay resident.
std::unique_ptr<model::CausalLm> open_model(
    const std::filesystem::path& folder);

// One document of `tokens` tokens with some pattern in it.
text::Sample sample(std::int64_t tokens, std::uint64_t seed);
// Two files, the first with `weight` against 1.
text::Mixture mixture(
    std::int64_t seq_len, std::uint64_t seed, double weight = 2.0);
std::vector<model::Sequence> sequences(std::int64_t count, std::int64_t tokens);

// Final hidden states of one fixed sequence as vocabulary logits.
at::Tensor logits_of(model::CausalLm& model);

}  // namespace fettle::tune::testing
