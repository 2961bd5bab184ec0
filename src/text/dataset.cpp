// SPDX-License-Identifier: Apache-2.0
#include "text/dataset.h"

#include <utility>

#include "core/error.h"
#include "core/json.h"

namespace fettle::text {
JsonlReader::JsonlReader(
    std::filesystem::path path,
    const Tokenizer& tokenizer,
    SampleOptions options)
    : path_(std::move(path)),
      rows_(path_),
      encoder_(tokenizer, std::move(options)) {}

std::optional<Sample> JsonlReader::next() {
  const auto row = rows_.next();
  if (!row) {
    if (!found_any_) {
      throw UserError("data", path_.string(), "holds no samples");
    }
    encoder_.check_answers();
    return std::nullopt;
  }
  const std::string subject = rows_.subject();
  Sample sample =
      encoder_.encode(parse_json(*row, "data", subject), *row, subject);
  found_any_ = true;
  return sample;
}

std::vector<Sample> read_samples(
    const std::filesystem::path& path,
    const Tokenizer& tokenizer,
    const SampleOptions& options) {
  JsonlReader reader(path, tokenizer, options);
  std::vector<Sample> samples;
  while (auto sample = reader.next()) samples.push_back(std::move(*sample));
  return samples;
}

}  // namespace fettle::text
