// SPDX-License-Identifier: Apache-2.0
// fettle.json: how a model folder came to be. One entry per stage, oldest first,
// each with the fingerprint of its input, its options, seed, version and what
// was measured.
#pragma once

#include <filesystem>
#include <string>

#include "core/json.h"

namespace fettle::artifact {

struct StageRecord {
  std::string stage;
  std::string input_fingerprint;
  Json options = Json::object();
  Json measured = Json::object();
};

// Copies what a model folder has beside its weights (tokenizer files, chat
// template, generation_config.json, licence, README) into `to`.
void copy_companions(
    const std::filesystem::path& from,
    const std::filesystem::path& to);

// Writes `to`/fettle.json: the entries of `from`/fettle.json (if any) and
// `record`.
void write_manifest(
    const std::filesystem::path& from,
    const std::filesystem::path& to,
    const StageRecord& record);

}  // namespace fettle::artifact
