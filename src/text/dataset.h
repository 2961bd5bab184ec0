// SPDX-License-Identifier: Apache-2.0
// Data files: JSON Lines, one sample a line, or an array of samples, in the
// forms that sample_encoder.h lists.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/row_reader.h"
#include "text/sample.h"
#include "text/sample_encoder.h"
#include "text/tokenizer.h"

namespace fettle::text {

struct WeightedFile {
  std::filesystem::path path;
  double weight = 1.0;  // > 0, relative to the others
};

// Parses "a.jsonl:2,b.jsonl"; a file without a weight has 1. What follows a
// colon belongs to the name unless it is a number. The name of an existing file
// is taken as it is, commas and colons included; elsewhere \, and \: stand for
// them. A folder stands for all its *.jsonl, *.ndjson and *.json (and those
// with .gz), a pattern such as data/*.jsonl for what it matches, in sorted
// order; the files share the weight by their sizes. Throws UsageError on an
// empty name or a weight that is not positive, UserError on a folder or pattern
// without files.
std::vector<WeightedFile> parse_data_option(std::string_view text);

// Reads a file sample by sample; keeps one line in memory, or one array. Errors
// name file and line, "file.jsonl:17", or "file.json, item 17".
class JsonlReader {
 public:
  // Throws UserError when the file can't be opened. Keeps a reference to the
  // tokenizer.
  JsonlReader(
      std::filesystem::path path,
      const Tokenizer& tokenizer,
      SampleOptions options);

  // The next sample, or nothing after the last. Throws UserError on a line
  // that is no sample, and at the end of a file that held none.
  std::optional<Sample> next();

  // The line of the last sample, or its place in the array, from 1.
  std::int64_t line() const { return rows_.number(); }

 private:
  std::filesystem::path path_;
  RowReader rows_;
  SampleEncoder encoder_;
  bool found_any_ = false;
};

// All samples of a file.
std::vector<Sample> read_samples(
    const std::filesystem::path& path,
    const Tokenizer& tokenizer,
    const SampleOptions& options);

}  // namespace fettle::text
