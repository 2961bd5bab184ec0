// SPDX-License-Identifier: Apache-2.0
// Models that see or hear hold a language model as one of their parts. Their
// config.json describes it under "text_config", and the names of its tensors
// begin with more than "model.". Everything else of such a model is carried:
// copied as it is, never read.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "model/family/model_config.h"

namespace fettle::model {

// A model around a language model, whose logits for text alone are those of
// the language model alone.
struct Wrapper {
  std::string_view model_type;
  // The type of its language model where "text_config" names none.
  std::string_view text_type;
  bool is_tied = false;  // the head, where neither part speaks of it
};

std::span<const Wrapper> wrappers();

bool has_text_part(const Json& config);

// What describes the language model: `config`, or its "text_config".
const Json& text_part(const Json& config);
Json& text_part(Json& config);

// text_part(), with what the outer part of config.json decides for it: whether
// the head is tied, and how weights are quantized. Throws UserError on a
// wrapper that Fettle does not know.
Json text_config(const JsonObject& config);

// The names that a model of this config.json has unless its tensors say
// otherwise, and all that it may have.
TensorNames default_names(const Json& config);
std::vector<TensorNames> possible_names(const Json& config);

// `name`, as a family's table spells it, in a model of these names.
std::string placed_name(const TensorNames& names, std::string_view name);

// The type of the weights that config.json names ("float32", "bfloat16",
// "float16"), empty where it names none; and naming another.
std::string stated_dtype(const Json& config);
void state_dtype(Json& config, const std::string& name);

// The beginnings of names of parts that are not the language model's: vision
// towers, projectors, audio.
std::span<const std::string_view> carried_parts();

// Says in config.json that the model has no heads that predict further tokens.
// Loaders of some families take one for granted where no key speaks of it.
void state_no_mtp(Json& config);

}  // namespace fettle::model
