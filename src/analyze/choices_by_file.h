// SPDX-License-Identifier: Apache-2.0
// Which experts the text of one file uses: a file of mathematics and one of
// code may share few of them.
#pragma once

#include <string>
#include <vector>

#include "analyze/analyze.h"

namespace fettle::analyze {

struct FileChoices {
  std::string file;
  std::int64_t tokens = 0;                         // that were swept
  std::vector<std::vector<std::int64_t>> choices;  // [L][E]; dense: empty

  Json to_json() const;
  // Throws UserError when `json`, from scores.json, is none of these.
  static FileChoices from_json(const Json& json);
};

// Counts, in one forward sweep, the tokens of `data` that chose each expert. Of
// `options` it takes the micro-batches and what the sweep needs.
FileChoices count_choices(
    model::CausalLm& model,
    const std::string& file,
    const std::vector<model::Sequence>& data,
    const AnalyzeOptions& options);

}  // namespace fettle::analyze
