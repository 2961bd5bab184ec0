// SPDX-License-Identifier: Apache-2.0
// The kinds of attention that layers have, with their rotary embeddings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/args.h"

namespace fettle::model {

enum class AttentionKind { kGqa, kMla };
enum class QkNorm { kNone, kHead, kFull };
// What the heads' outputs are multiplied by before o_proj: the sigmoid of a
// projection of the layer's input.
enum class OutputGate { kNone, kOwnProjection };
using kernels::RopePairing;

struct RopeConfig {
  // default, linear, dynamic, yarn, longrope, llama3, proportional
  std::string type = "default";
  double theta = 10000.0;
  double factor = 1.0;
  std::int64_t dim = 0;  // rotated dimensions of a head; 0: no positions
  std::int64_t max_position = 0;  // max_position_embeddings
  std::int64_t original_max_position = 0;
  std::optional<double> attention_factor;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  bool truncate = true;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // Of proportional: how many of the dim / 2 angles are not 0.
  std::int64_t angles = 0;
  std::vector<double> short_factor;
  std::vector<double> long_factor;
  RopePairing pairing = RopePairing::kHalf;
};

struct AttentionConfig {
  AttentionKind kind = AttentionKind::kGqa;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;    // of queries and keys
  std::int64_t v_head_dim = 0;  // of values; equal to head_dim under GQA
  bool qkv_bias = false;        // under MLA: bias of q_a and kv_a
  bool o_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  std::optional<double> clip_qkv;
  double softmax_scale = 0.0;
  OutputGate gate = OutputGate::kNone;
  bool v_norm = false;  // values of a head divided by their root mean square
  bool k_as_v = false;  // no v_proj: k_proj's output before its norm
  bool sinks = false;   // one more logit a head in each softmax
  // MLA only.
  std::int64_t q_lora_rank = 0;  // 0: one q_proj
  std::int64_t kv_lora_rank = 0;
  std::int64_t qk_nope_head_dim = 0;
  RopeConfig rope = {};
};

}  // namespace fettle::model
