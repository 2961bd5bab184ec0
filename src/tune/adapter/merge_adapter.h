// SPDX-License-Identifier: Apache-2.0
// Adds a tuned adapter to its base and writes the result as a model folder.
// Tensors that tuning did not touch keep their type and bytes. With changed
// tensors in fp32, which config.json then names, the merged model's logits are
// the tuned model's, bit for bit on the CPU.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "artifact/carried_copy.h"
#include "core/json.h"
#include "core/progress.h"
#include "model/weights/model_reader.h"

namespace fettle::tune {

struct MergeOptions {
  // Type of changed tensors: "keep" is the base's own (of packed ones the type
  // that config.json names), which rounds the change; "float32" holds all.
  std::string dtype = "keep";
  // Takes the adapter for one of this base though the fingerprints differ.
  bool any_base = false;
  // What to do with heads that predict further tokens.
  artifact::Mtp mtp = artifact::Mtp::kAuto;
};

// How much of the change of one role's tensors the written types hold.
struct DeltaKept {
  double delta = 0.0;  // ||w - w0||
  double kept = 0.0;   // ||written - w0||
  double lost = 0.0;   // ||w - written||

  double kept_share() const { return delta > 0.0 ? kept / delta : 1.0; }
  double lost_share() const { return delta > 0.0 ? lost / delta : 0.0; }
};

struct MergeReport {
  std::map<std::string, DeltaKept> roles;  // by role name
  DeltaKept all;
  std::string dtype;                  // that config.json names: loaders' own
  std::int64_t bytes = 0;             // of the model written
  std::int64_t bytes_as_float32 = 0;  // with changed tensors in fp32
  Json to_json() const;
};

// Throws UserError on a type that is not known.
void check_merge_dtype(const std::string& dtype);

// Writes `out`, which appears whole or not at all. Throws UserError when the
// adapter is unfit (Adapter::load) or `out` exists.
MergeReport merge_adapter(
    const model::ModelReader& base,
    const std::filesystem::path& adapter_folder,
    const MergeOptions& options,
    const std::filesystem::path& out,
    Reporter& reporter);

}  // namespace fettle::tune
