// SPDX-License-Identifier: Apache-2.0
#include "cli/fit/texts.h"

#include <algorithm>

#include "core/error.h"
#include "text/dataset.h"
#include "text/source_counts.h"

namespace fettle::cli {
namespace {

bool counts(const text::Sample& sample, std::int64_t seq_len) {
  return std::ranges::any_of(
      text::windows(sample, seq_len),
      [](const text::Sample& window) { return scored_from(window, 1) > 0; });
}

}  // namespace

void require_tokens(
    Session& session, const model::ModelReader& reader, const FitTexts& texts) {
  const auto tokenizer = session.tokenizer(reader.folder());
  const auto options = session.sample_options(reader, texts.flags);
  const std::int64_t seq_len = window_tokens(reader.config(), texts.seq_len);
  for (const text::WeightedFile& file : data_files(texts.files)) {
    text::JsonlReader samples(file.path, tokenizer, options);
    bool found = false;
    while (!found) {
      const auto sample = samples.next();
      if (!sample) break;
      found = counts(*sample, seq_len);
    }
    if (found) continue;
    throw UserError(
        "fit",
        file.path.string(),
        "expected text with tokens to predict, found none");
  }
}

}  // namespace fettle::cli
