// SPDX-License-Identifier: Apache-2.0
// How a command reads its data files, and what it says of them before work.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "text/row_form.h"
#include "text/source_counts.h"

namespace fettle::cli {

// What --data takes, for --help.
inline constexpr const char* kDataHelp =
    "Data: JSON Lines or a JSON array, .gz too; files, folders or patterns, "
    "with "
    "weights as a.jsonl:2,b.jsonl";

struct DataFlags {
  std::string columns;
  std::string form;

  // Throws UsageError on what neither option takes.
  text::RowForm row_form() const;
};

void add_data_flags(CLI::App& app, DataFlags& flags);

struct DataUse {
  const char* scored = "scored";  // the column's name
  std::int64_t seq_len = 0;
  std::int64_t wanted = 0;  // tokens that were asked for; 0: all
  std::int64_t used = 0;    // tokens that the work takes
  bool draws = false;       // files again and again, by their weights
};

// How often each file is read through when `use.used` tokens are drawn.
std::vector<double> epochs_of(
    const std::vector<text::SourceCounts>& counts, const DataUse& use);

// A table of files, and a sentence on each thing that was cut, skipped or is
// too little.
std::string data_text(
    const std::vector<text::SourceCounts>& counts, const DataUse& use);

// The last parts of data files' paths, as a written model's record names them.
Json data_names(const std::vector<std::string>& data);

Json data_json(
    const std::vector<text::SourceCounts>& counts, const DataUse& use);

}  // namespace fettle::cli
