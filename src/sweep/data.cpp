// SPDX-License-Identifier: Apache-2.0
#include "sweep/data.h"

#include <algorithm>

#include "core/rng.h"

namespace fettle::sweep {
namespace {

std::vector<model::Sequence> file_windows(
    const std::filesystem::path& file, const DataSource& source) {
  std::vector<model::Sequence> sequences;
  text::JsonlReader reader(file, source.tokenizer, source.options);
  while (const auto sample = reader.next()) {
    for (auto& window : text::windows(*sample, source.seq_len)) {
      sequences.push_back(
          {std::move(window.ids), std::move(window.labels), {}});
    }
  }
  return sequences;
}

}  // namespace

std::int64_t count_tokens(const std::vector<model::Sequence>& sequences) {
  std::int64_t tokens = 0;
  for (const auto& s : sequences) {
    tokens += static_cast<std::int64_t>(s.ids.size());
  }
  return tokens;
}

std::int64_t longest(const std::vector<model::Sequence>& sequences) {
  std::int64_t most = 0;
  for (const auto& s : sequences) {
    most = std::max(most, static_cast<std::int64_t>(s.ids.size()));
  }
  return most;
}

std::vector<EvalSet> load_sets(
    const std::vector<text::WeightedFile>& files, const DataSource& source) {
  std::vector<EvalSet> sets;
  for (const auto& file : files) {
    sets.push_back({file.path.string(), file_windows(file.path, source)});
  }
  return sets;
}

std::vector<model::Sequence> load_calibration(
    const std::vector<text::WeightedFile>& files,
    const DataSource& source,
    std::int64_t tokens,
    std::uint64_t seed) {
  double weights = 0;
  for (const auto& file : files) weights += file.weight;
  std::vector<model::Sequence> drawn;
  for (std::size_t f = 0; f < files.size(); ++f) {
    auto sequences = file_windows(files[f].path, source);
    Rng rng(seed, f);
    rng.shuffle(std::span(sequences));
    const double share =
        static_cast<double>(tokens) * files[f].weight / weights;
    double taken = 0;
    for (auto& sequence : sequences) {
      if (tokens > 0 && taken >= share) break;
      taken += static_cast<double>(sequence.ids.size());
      drawn.push_back(std::move(sequence));
    }
  }
  return drawn;
}

}  // namespace fettle::sweep
