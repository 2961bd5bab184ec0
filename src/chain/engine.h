// SPDX-License-Identifier: Apache-2.0
// The programs that may run a model, as data: which widths and schemes they
// hold, what they keep of a conversation, and what they take beside the
// weights. Planning asks these rows and never for a program's name.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "export/target.h"
#include "model/family/model_config.h"

namespace fettle::chain {

// How a program stores weights: decides their bytes.
enum class Storage {
  kFettle,  // packed matrices, ragged widths
  kGguf,    // blocks of llama.cpp
  kWords,   // compressed-tensors: codes in 32-bit words
};

// What attention with latents (MLA) keeps of a token.
enum class LatentCache {
  kLatents,  // what is compressed, and the rotated part of the key
  kTwice,    // that, and the latents once more as values
  kHeads,    // keys and values of all heads
};

struct StateRules {
  std::int64_t number_bytes = 2;     // of keys, values and latents
  std::int64_t tail_bytes = 2;       // of a convolution's last inputs
  std::int64_t recurrent_bytes = 4;  // of a recurrence's state
  std::int64_t token_unit = 1;       // room is made for multiples of this
  LatentCache latents = LatentCache::kLatents;
  // Layers with a window keep that many tokens and so many more; -1: all.
  std::int64_t beyond_window = -1;
};

struct WorkRules {
  // Tokens of a prompt that pass the layers together; 0: all of it.
  std::int64_t batch_tokens = 0;
  std::int64_t number_bytes = 2;       // of an activation
  std::int64_t logit_rows = 1;         // whose logits exist at one time
  std::int64_t bytes_per_context = 0;  // masks, for each token of a context
  // Copies of a prompt's activations that libraries hold beside one.
  std::int64_t copies = 0;
  double usable = 1.0;          // share of the card that it uses
  std::int64_t card_bytes = 0;  // driver and libraries on a card
  std::int64_t ram_bytes = 0;   // program and libraries
};

// A way to store a model's weights, as a row of the table. Other matrices than
// the experts' are int8, embeddings and head as they are: what fettle quant
// does unless asked otherwise.
struct SchemeRow {
  std::string_view label = {};   // "Q4_0"
  std::string_view scheme = {};  // of the experts, see quant::parse_scheme
  std::int64_t group = 0;  // weights that share a scale; 0: what divides H
};

struct Engine {
  std::string_view name;
  exporter::Target target;
  Storage storage;
  StateRules state;
  WorkRules work;
  std::vector<SchemeRow> schemes;  // by falling bits, "keep" first
  bool needs_card = false;
  bool embeds_in_ram = false;   // embeddings stay beside the CPU
  bool splits_experts = false;  // experts of some layers may stay in RAM
  // Packed weights are unpacked when they are loaded, beside the file's pages.
  bool unpacks = false;
  bool streams = false;          // runs with less memory, reading layers anew
  std::string_view source;       // where the figures beside weights come from
  std::string_view for_option;   // --for of trim and quant; empty: none
  std::string_view export_form;  // of packed weights; empty: no export
};

// Throws UserError naming the known ones.
const Engine& find_engine(std::string_view name);
std::vector<std::string> engine_names();

// Throws UserError where the program can't run a model of this configuration.
void require_engine(const Engine& engine, const model::ModelConfig& config);

// Bytes that one conversation of `tokens` tokens takes there.
std::int64_t conversation_bytes(
    const model::ModelConfig& config,
    const StateRules& rules,
    std::int64_t tokens);

// Keys and values in a type of `bytes` bytes, as Fettle keeps them.
StateRules own_state_rules(std::int64_t bytes);

}  // namespace fettle::chain
