// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_names.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "export/gguf/gguf_layer_kinds.h"

namespace fettle::exporter {
namespace {

using model::Role;
using model::WeightId;

constexpr auto kTensorNames = std::to_array<std::pair<Role, std::string_view>>({
    {Role::kEmbedTokens, "token_embd.weight"},
    {Role::kFinalNorm, "output_norm.weight"},
    {Role::kLmHead, "output.weight"},
    {Role::kInputNorm, "blk.{l}.attn_norm.weight"},
    {Role::kPostAttentionNorm, "blk.{l}.ffn_norm.weight"},
    {Role::kQProj, "blk.{l}.attn_q.weight"},
    {Role::kQBias, "blk.{l}.attn_q.bias"},
    {Role::kKProj, "blk.{l}.attn_k.weight"},
    {Role::kKBias, "blk.{l}.attn_k.bias"},
    {Role::kVProj, "blk.{l}.attn_v.weight"},
    {Role::kVBias, "blk.{l}.attn_v.bias"},
    {Role::kOProj, "blk.{l}.attn_output.weight"},
    {Role::kOBias, "blk.{l}.attn_output.bias"},
    {Role::kSinks, "blk.{l}.attn_sinks.weight"},
    {Role::kQNorm, "blk.{l}.attn_q_norm.weight"},
    {Role::kKNorm, "blk.{l}.attn_k_norm.weight"},
    {Role::kQAProj, "blk.{l}.attn_q_a.weight"},
    {Role::kQANorm, "blk.{l}.attn_q_a_norm.weight"},
    {Role::kQBProj, "blk.{l}.attn_q_b.weight"},
    {Role::kKvAProj, "blk.{l}.attn_kv_a_mqa.weight"},
    {Role::kKvANorm, "blk.{l}.attn_kv_a_norm.weight"},
    {Role::kKvBProj, "blk.{l}.attn_kv_b.weight"},
    {Role::kRouter, "blk.{l}.ffn_gate_inp.weight"},
    {Role::kRouterBias, "blk.{l}.ffn_gate_inp.bias"},
    {Role::kRouterCorrection, "blk.{l}.exp_probs_b.bias"},
    {Role::kExpertGate, "blk.{l}.ffn_gate_exps.weight"},
    {Role::kExpertUp, "blk.{l}.ffn_up_exps.weight"},
    {Role::kExpertDown, "blk.{l}.ffn_down_exps.weight"},
    {Role::kExpertGateBias, "blk.{l}.ffn_gate_exps.bias"},
    {Role::kExpertUpBias, "blk.{l}.ffn_up_exps.bias"},
    {Role::kExpertConstant, "blk.{l}.ffn_down_exps.bias"},
    {Role::kSharedGate, "blk.{l}.ffn_gate_shexp.weight"},
    {Role::kSharedUp, "blk.{l}.ffn_up_shexp.weight"},
    {Role::kSharedDown, "blk.{l}.ffn_down_shexp.weight"},
    {Role::kSharedRouter, "blk.{l}.ffn_gate_inp_shexp.weight"},
    {Role::kDenseGate, "blk.{l}.ffn_gate.weight"},
    {Role::kDenseUp, "blk.{l}.ffn_up.weight"},
    {Role::kDenseDown, "blk.{l}.ffn_down.weight"},
    {Role::kShortConvIn, "blk.{l}.shortconv.in_proj.weight"},
    {Role::kShortConvOut, "blk.{l}.shortconv.out_proj.weight"},
    {Role::kDeltaQkv, "blk.{l}.attn_qkv.weight"},
    {Role::kDeltaGate, "blk.{l}.attn_gate.weight"},
    {Role::kDeltaBeta, "blk.{l}.ssm_beta.weight"},
    {Role::kDeltaDecay, "blk.{l}.ssm_alpha.weight"},
    {Role::kDeltaBetaDecay, "blk.{l}.ssm_ba.weight"},
    {Role::kConvWeight, "blk.{l}.ssm_conv1d.weight"},
    {Role::kDeltaLogRate, "blk.{l}.ssm_a"},
    {Role::kDeltaDecayBias, "blk.{l}.ssm_dt.bias"},
    {Role::kDeltaNorm, "blk.{l}.ssm_norm.weight"},
    {Role::kDeltaOut, "blk.{l}.ssm_out.weight"},
    {Role::kConvBias, "blk.{l}.ssm_conv1d.bias"},
    {Role::kMambaIn, "blk.{l}.ssm_in.weight"},
    {Role::kMambaLogRate, "blk.{l}.ssm_a"},
    {Role::kMambaStepBias, "blk.{l}.ssm_dt.bias"},
    {Role::kMambaSkip, "blk.{l}.ssm_d"},
    {Role::kMambaNorm, "blk.{l}.ssm_norm.weight"},
    {Role::kMambaOut, "blk.{l}.ssm_out.weight"},
    {Role::kQABias, ""},
    {Role::kKvABias, ""},
});

// What an architecture calls otherwise.
struct OwnName {
  std::string_view architecture;
  Role role;
  std::string_view name;
};

constexpr auto kOwnNames = std::to_array<OwnName>({
    {"glm4moe", Role::kPostAttentionNorm, "blk.{l}.post_attention_norm.weight"},
    {"gpt-oss", Role::kPostAttentionNorm, "blk.{l}.post_attention_norm.weight"},
    {"qwen3next",
     Role::kPostAttentionNorm,
     "blk.{l}.post_attention_norm.weight"},
    {"qwen35moe",
     Role::kPostAttentionNorm,
     "blk.{l}.post_attention_norm.weight"},
    {kNemotronArchitecture,
     Role::kPostAttentionNorm,
     "blk.{l}.attn_norm.weight"},
    {"lfm2moe", Role::kFinalNorm, "token_embd_norm.weight"},
    {"lfm2moe", Role::kConvWeight, "blk.{l}.shortconv.conv.weight"},
});

}  // namespace

std::string gguf_name(const GgufFamily& family, const WeightId& id) {
  for (const OwnName& own : kOwnNames) {
    if (own.architecture == family.architecture && own.role == id.role) {
      return model::expand_name(own.name, id);
    }
  }
  if (const auto own = layer_kinds_name(id.role)) {
    return model::expand_name(*own, id);
  }
  const auto* const found = std::ranges::find(
      kTensorNames, id.role, &std::pair<Role, std::string_view>::first);
  FETTLE_ASSERT(found != kTensorNames.end() && !found->second.empty());
  return model::expand_name(found->second, id);
}

}  // namespace fettle::exporter
