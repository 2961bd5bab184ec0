// SPDX-License-Identifier: Apache-2.0
// What `fettle run` shows of its steps: a row each, or with --dry-run what each
// would do.
#pragma once

#include <string>
#include <vector>

#include "cli/chain.h"
#include "cli/run_record.h"
#include "cli/table.h"
#include "core/json.h"

namespace fettle::cli {

class RunTable {
 public:
  RunTable();
  // `loss` may be null. Adds to the JSON too.
  void add(
      const std::string& step,
      const Json& result,
      const Json& loss,
      bool skipped);
  std::string text() const { return table_.text(); }
  const Json& json() const { return stages_; }

 private:
  Table table_;
  Json stages_ = Json::array();
};

struct DryRun {
  std::string text;  // each step with the command that it stands for
  Json stages = Json::array();
};

// `measures`: whether the losses behind the steps are asked for; `loss_key` is
// theirs.
DryRun dry_run(
    const std::vector<ChainStep>& steps,
    const RunRecord& record,
    const std::string& loss_key);

}  // namespace fettle::cli
