// SPDX-License-Identifier: Apache-2.0
// How tokens are chosen, and where a text ends: of generate and chat.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "decode/engine.h"

namespace fettle::cli {

struct SamplingFlags {
  decode::SamplingOptions sampling;
  std::int64_t max_new_tokens = 64;
  std::vector<std::string> stops;
  std::string activations = "full";
};

// --activations.
void add_activations_option(CLI::App& app, std::string& name);
// Throws UserError where the device has no such products.
model::Activations chosen_activations(
    const std::string& name, at::Device device);

void add_sampling_flags(CLI::App& app, SamplingFlags& flags);

// Refuses options that only a temperature gives an effect.
void check_sampling_flags(const CLI::App& app, const SamplingFlags& flags);

}  // namespace fettle::cli
