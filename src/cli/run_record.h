// SPDX-License-Identifier: Apache-2.0
// run.json in a recipe's work folder: which step made which folder from what,
// and what was measured. Rewritten whole before and after each step. What isn't
// as it was written counts as not there.
#pragma once

#include <filesystem>
#include <string>

#include "cli/chain.h"
#include "core/json.h"

namespace fettle::cli {

class RunRecord {
 public:
  // Reads `work`/run.json where there is one.
  explicit RunRecord(std::filesystem::path work);

  // Whether the step's folder is whole and was made from the same inputs; of a
  // step without a folder, whether its result is known. An output folder
  // appears only when it is whole.
  bool is_whole(const ChainStep& step) const;
  // Whether this very step was begun and its folder is unfinished.
  bool is_begun(const ChainStep& step) const;
  // Whether the folder there is ours, made from other inputs.
  bool is_stale(const ChainStep& step) const;

  void begin(const ChainStep& step);
  void finish(const ChainStep& step, const Json& result);
  // What finish() was given for the same inputs, or an empty object: a run may
  // have been killed between a folder's last file and this.
  Json result(const ChainStep& step) const;

  // The evaluation of the step's model by what `key` stands for, or null.
  Json loss(const ChainStep& step, const std::string& key) const;
  void set_loss(
      const ChainStep& step, const std::string& key, const Json& loss);

 private:
  // The step's entry where it has the same key; else null.
  const Json* entry(const ChainStep& step) const;
  void save() const;

  std::filesystem::path work_;
  Json json_;
};

}  // namespace fettle::cli
