// SPDX-License-Identifier: Apache-2.0
// fettle.json: how a model folder came to be. One entry per stage, oldest
// first, each with the fingerprint of its input, its options, seed, version and
// what was measured.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "core/json.h"

namespace fettle::artifact {

// The version of this program, such as "0.1.0".
std::string_view version();

struct StageRecord {
  std::string stage = {};
  std::string input_fingerprint = {};
  Json options = Json::object();   // as given, seed included
  Json measured = Json::object();  // sizes, seconds, peak memory
};

// Copies what a model folder has beside its weights (tokenizer files, chat
// template, generation_config.json, code, licence) into `to`. Weights, indexes,
// what stages of Fettle wrote, and the README, which write_manifest keeps, are
// left out.
void copy_companions(
    const std::filesystem::path& from, const std::filesystem::path& to);

// Writes `to`/fettle.json, the entries of `from`/fettle.json (if any) and
// `record`, and the model card (model_card.h). Throws UserError when that file
// is none of ours.
void write_manifest(
    const std::filesystem::path& from,
    const std::filesystem::path& to,
    const StageRecord& record);

// Replaces what was measured in the newest entry of `folder`/fettle.json: for
// figures known only after the folder was written.
void set_measured(const std::filesystem::path& folder, const Json& measured);

// Adds one figure to them.
void add_measured(
    const std::filesystem::path& folder,
    const std::string& name,
    const Json& value);

}  // namespace fettle::artifact
