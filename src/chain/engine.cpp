// SPDX-License-Identifier: Apache-2.0
#include "chain/engine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "core/error.h"
#include "decode/engine.h"
#include "export/gguf/gguf_metadata.h"
#include "export/stock_layout.h"
#include "model/layers/state_size.h"

namespace fettle::chain {
namespace {

constexpr std::int64_t kMebi = 1 << 20;

std::vector<SchemeRow> own_schemes() {
  return {
      {"stored", "keep"},
      {"int8", "int8", 128},
      {"int4", "int4", 128},
      {"int3", "int3", 128},
      {"int2", "int2", 128},
      {"ternary", "ternary", 128}};
}

// By the types that hold such codes exactly: gguf_blocks.h.
std::vector<SchemeRow> gguf_schemes() {
  return {
      {"stored", "keep"},
      {"Q8_0", "int8", 32},
      {"Q4_0", "int4", 32},
      {"Q3_K", "int3", 256},
      {"Q2_K", "int2", 256},
      {"TQ2_0", "ternary", 256}};
}

std::vector<SchemeRow> word_schemes() {
  return {{"stored", "keep"}, {"int8", "int8"}, {"int4", "int4"}};
}

Engine fettle_engine() {
  return {
      .name = "fettle",
      .target = exporter::Target::kFettle,
      .storage = Storage::kFettle,
      .state = own_state_rules(2),
      // The context that CUDA makes for a process is no part of --vram.
      .work =
          {.batch_tokens = decode::kPromptChunk,
           .usable = 0.92,
           .card_bytes = 512 * kMebi},
      .schemes = own_schemes(),
      .streams = true,
      .source = "Fettle's own plan, which generate keeps to",
      .for_option = "",
      .export_form = ""};
}

// 512 tokens at a time, logits of each in fp32, a mask of a context by 512 in
// fp32 and fp16. Source: llama.cpp, llama-context.cpp, llama-kv-cache*.cpp.
Engine llama_engine() {
  return {
      .name = "llama.cpp",
      .target = exporter::Target::kGguf,
      .storage = Storage::kGguf,
      .state =
          {.tail_bytes = 4,
           .token_unit = 256,
           .latents = LatentCache::kTwice,
           .beyond_window = 512},
      .work =
          {.batch_tokens = 512,
           .number_bytes = 4,
           .logit_rows = 512,
           .bytes_per_context = 512 * 6,
           .card_bytes = 512 * kMebi,
           .ram_bytes = 512 * kMebi},
      .schemes = gguf_schemes(),
      .embeds_in_ram = true,
      .splits_experts = true,
      .source =
          "llama.cpp's source with its usual settings (-ub 512, caches in "
          "fp16), and on a CPU its peak in docs/fit.md",
      .for_option = "gguf",
      .export_form = "gguf"};
}

// Prompts in pieces of 8192 tokens, 256 sequences at once; a card's last tenth
// is left to others. Source: vLLM's documented defaults.
Engine vllm_engine() {
  return {
      .name = "vllm",
      .target = exporter::Target::kVllm,
      .storage = Storage::kWords,
      .state = {.tail_bytes = 4, .token_unit = 16, .beyond_window = 8192},
      .work =
          {.batch_tokens = 8192,
           .logit_rows = 256,
           .usable = 0.9,
           .card_bytes = 1536 * kMebi,
           .ram_bytes = 4096 * kMebi},
      .schemes = word_schemes(),
      .needs_card = true,
      .source =
          "vLLM's documented defaults (max_num_batched_tokens 8192, "
          "gpu_memory_utilization 0.9); not measured",
      .for_option = "vllm",
      .export_form = "compressed-tensors"};
}

Engine transformers_engine() {
  return {
      .name = "transformers",
      .target = exporter::Target::kHf,
      .storage = Storage::kWords,
      .state =
          {.tail_bytes = 4, .latents = LatentCache::kHeads, .beyond_window = 0},
      .work =
          {.copies = 3, .card_bytes = 512 * kMebi, .ram_bytes = 1024 * kMebi},
      .schemes = word_schemes(),
      .unpacks = true,
      .source =
          "transformers' source (a prompt passes whole), and on a CPU its peak "
          "in docs/fit.md",
      .for_option = "hf",
      .export_form = "compressed-tensors"};
}

const std::vector<Engine>& engines() {
  static const std::vector<Engine> all{
      fettle_engine(), llama_engine(), vllm_engine(), transformers_engine()};
  return all;
}

std::int64_t latent_values(const model::AttentionConfig& a, LatentCache cache) {
  const std::int64_t once = a.kv_lora_rank + a.rope.dim;
  switch (cache) {
    case LatentCache::kLatents:
      return once;
    case LatentCache::kTwice:
      return once + a.kv_lora_rank;
    case LatentCache::kHeads:
      return a.heads * (a.head_dim + a.v_head_dim);
  }
  return 0;
}

std::int64_t tokens_kept(
    const model::LayerConfig& layer,
    const StateRules& rules,
    std::int64_t tokens) {
  std::int64_t kept = tokens;
  if (rules.beyond_window >= 0 && layer.sliding_window > 0) {
    kept = std::min(kept, layer.sliding_window + rules.beyond_window);
  }
  return exporter::rounded_up(kept, rules.token_unit);
}

}  // namespace

const Engine& find_engine(std::string_view name) {
  for (const Engine& engine : engines()) {
    if (engine.name == name) return engine;
  }
  throw UserError(
      "fit",
      "--engine",
      fmt::format(
          "expected one of {}, found {}",
          fmt::join(engine_names(), ", "),
          name));
}

std::vector<std::string> engine_names() {
  std::vector<std::string> names;
  for (const Engine& engine : engines()) names.emplace_back(engine.name);
  return names;
}

void require_engine(const Engine& engine, const model::ModelConfig& config) {
  if (engine.storage != Storage::kGguf) return;
  try {
    exporter::gguf_family(config, {.nearest = true});
  } catch (const UserError& error) {
    const std::string text = error.what();  // "[export] subject: ..."
    throw UserError(
        "fit",
        fmt::format("--engine {}", engine.name),
        text.substr(text.find("] ") + 2));
  }
}

StateRules own_state_rules(std::int64_t bytes) {
  return {.number_bytes = bytes, .tail_bytes = bytes};
}

std::int64_t conversation_bytes(
    const model::ModelConfig& config,
    const StateRules& rules,
    std::int64_t tokens) {
  std::int64_t bytes = 0;
  for (const model::LayerConfig& layer : config.layers) {
    const model::StateSize size = model::state_size(config, layer);
    std::int64_t per_token = size.per_token;
    if (layer.mixer == model::MixerKind::kAttention) {
      const model::AttentionConfig& a = config.attention_of(layer);
      if (a.kind == model::AttentionKind::kMla) {
        per_token = latent_values(a, rules.latents);
      }
    }
    bytes +=
        tokens_kept(layer, rules, tokens) * per_token * rules.number_bytes +
        size.tail * rules.tail_bytes + size.recurrent * rules.recurrent_bytes;
  }
  return bytes;
}

}  // namespace fettle::chain
