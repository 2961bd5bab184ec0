// SPDX-License-Identifier: Apache-2.0
#include "sweep/data.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/rng.h"
#include "io/checksum.h"

namespace fettle::sweep {
namespace {

struct FileWindows {
  std::vector<model::Sequence> sequences;
  text::SourceCounts counts;
};

void add_windows(
    const text::Sample& sample, const DataSource& source, FileWindows& out) {
  std::int64_t scored = 0;
  std::int64_t skipped = 0;
  auto windows = text::windows(sample, source.seq_len);
  const bool cut = windows.size() > 1;
  std::vector<model::Sequence> kept;
  for (auto& window : windows) {
    const std::int64_t tokens = text::scored_from(window, 1);
    scored += tokens;
    if (tokens == 0 && source.scored_only) {
      ++skipped;
    } else {
      kept.push_back({std::move(window.ids), std::move(window.labels), {}});
    }
  }
  if (kept.empty()) {
    ++out.counts.skipped;
    return;
  }
  ++out.counts.samples;
  out.counts.tokens += count_tokens(kept);
  out.counts.scored += scored;
  out.counts.cut += cut ? 1 : 0;
  out.counts.skipped_windows += skipped;
  std::ranges::move(kept, std::back_inserter(out.sequences));
}

FileWindows file_windows(
    const text::WeightedFile& file, const DataSource& source) {
  FileWindows out;
  out.counts.name = file.path.string();
  out.counts.weight = file.weight;
  text::JsonlReader reader(file.path, source.tokenizer, source.options);
  while (const auto sample = reader.next()) add_windows(*sample, source, out);
  if (out.sequences.empty()) {
    throw UserError(
        "data",
        file.path.string(),
        "no sample has a token that counts for the loss and has a token before "
        "it");
  }
  return out;
}

template <typename Value>
std::span<const std::byte> bytes_of(const std::vector<Value>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

std::string checksum(const std::vector<model::Sequence>& sequences) {
  io::Hasher hasher;
  for (const model::Sequence& sequence : sequences) {
    const std::vector<std::size_t> sizes{
        sequence.ids.size(),
        sequence.labels.size(),
        sequence.document_starts.size()};
    hasher.update(bytes_of(sizes));
    hasher.update(bytes_of(sequence.ids));
    hasher.update(bytes_of(sequence.labels));
    hasher.update(bytes_of(sequence.document_starts));
  }
  return hasher.digest();
}

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

EvalData load_sets(
    const std::vector<text::WeightedFile>& files, const DataSource& source) {
  EvalData data;
  for (const auto& file : files) {
    FileWindows windows = file_windows(file, source);
    data.sets.push_back({file.path.string(), std::move(windows.sequences)});
    data.counts.push_back(std::move(windows.counts));
  }
  return data;
}

CalibrationData load_calibration(
    const std::vector<text::WeightedFile>& files,
    const DataSource& source,
    std::int64_t tokens,
    std::uint64_t seed) {
  double weights = 0;
  for (const auto& file : files) weights += file.weight;
  CalibrationData data;
  for (std::size_t f = 0; f < files.size(); ++f) {
    FileWindows windows = file_windows(files[f], source);
    data.counts.push_back(std::move(windows.counts));
    Rng rng(seed, f);
    rng.shuffle(std::span(windows.sequences));
    const double share =
        static_cast<double>(tokens) * files[f].weight / weights;
    double taken = 0;
    for (auto& sequence : windows.sequences) {
      if (tokens > 0 && taken >= share) break;
      taken += static_cast<double>(sequence.ids.size());
      data.sequences.push_back(std::move(sequence));
    }
    data.ends.push_back(data.sequences.size());
  }
  return data;
}

}  // namespace fettle::sweep
