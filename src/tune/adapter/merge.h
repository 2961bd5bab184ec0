// SPDX-License-Identifier: Apache-2.0
// Adds a tuned adapter to its base and writes the result as a model folder.
// Tensors that tuning did not touch keep their type and bytes. With changed
// tensors in fp32 the merged model's logits are the tuned model's, bit for bit
// on the CPU.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "core/json.h"
#include "core/progress.h"
#include "model/model_reader.h"

namespace fettle::tune {

struct MergeOptions {
  // Type of changed tensors: fp32, or with `keep_dtype` the base's own, which
  // may round part of the change away.
  bool keep_dtype = false;
};

// How much of the change of one role's tensors the written type holds.
struct DeltaKept {
  double delta = 0.0;  // ||w - w0||
  double kept = 0.0;   // ||written - w0||
  double lost = 0.0;   // ||w - written||

  double kept_share() const { return delta > 0.0 ? kept / delta : 1.0; }
};

struct MergeReport {
  std::map<std::string, DeltaKept> roles;  // by role name
  Json to_json() const;
};

// Writes `out`, which appears whole or not at all. Throws UserError when the
// adapter is unfit (Adapter::load) or `out` exists.
MergeReport merge_adapter(
    const model::ModelReader& base,
    const std::filesystem::path& adapter_folder,
    const MergeOptions& options,
    const std::filesystem::path& out,
    Reporter& reporter);

}  // namespace fettle::tune
