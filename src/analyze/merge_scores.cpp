// SPDX-License-Identifier: Apache-2.0
#include "analyze/merge_scores.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "analyze/finish.h"
#include "analyze/ranking.h"
#include "core/bytes.h"
#include "core/error.h"

namespace fettle::analyze {
namespace {

using artifact::LayerScores;
using artifact::ScoreFile;

bool has_score(const ScoreFile& file, std::string_view name) {
  return std::ranges::count(file.all_scores(), name) > 0;
}

// What must be the same, as text, by what it is called.
std::vector<std::pair<std::string, std::string>> identity(
    const ScoreFile& file) {
  const auto option = [&](const std::string& name) {
    return file.run.contains(name) ? file.run[name].dump() : "none";
  };
  std::vector<std::pair<std::string, std::string>> same{
      {"model", file.model_fingerprint},
      {"version", file.version},
      {"scores", fmt::format("{}", fmt::join(file.all_scores(), ", "))},
      {"option seq_len", option("seq_len")}};
  if (has_score(file, "grad_abs")) {
    same.emplace_back("option batch_sequences", option("batch_sequences"));
  }
  if (has_score(file, "random")) {
    same.emplace_back("option seed", option("seed"));
  }
  return same;
}

void check_same_run(const MergeInput& first, const MergeInput& other) {
  const auto expected = identity(first.scores);
  const auto found = identity(other.scores);
  // With the same scores, both lists have the same entries.
  for (std::size_t i = 0; i < std::min(expected.size(), found.size()); ++i) {
    if (expected[i] == found[i]) continue;
    throw UserError(
        "merge",
        other.name,
        fmt::format(
            "{}: expected {}, as in {}, found {}; merge what was analyzed "
            "alike",
            expected[i].first,
            expected[i].second,
            first.name,
            found[i].second));
  }
}

void check_layers(const MergeInput& first, const MergeInput& other) {
  const auto& a = first.scores.layers;
  const auto& b = other.scores.layers;
  const bool same =
      std::ranges::equal(a, b, [](const LayerScores& x, const LayerScores& y) {
        return x.widths == y.widths &&
               std::ranges::equal(
                   x.sums, y.sums, [](const auto& p, const auto& q) {
                     return p.first == q.first &&
                            p.second.unit == q.second.unit &&
                            p.second.reduction == q.second.reduction;
                   });
      });
  if (same) return;
  throw UserError(
      "merge",
      other.name,
      fmt::format(
          "expected layers and sums as in {}, found others; run fettle analyze "
          "again",
          first.name));
}

// Bytes of the moments of all experts: two sums in fp64.
std::int64_t moment_bytes(const ScoreFile& file) {
  std::int64_t bytes = 0;
  for (const LayerScores& layer : file.layers) {
    for (const std::int64_t width : layer.widths) bytes += 16 * width * width;
  }
  return bytes;
}

void check_mergeable(const MergeInput& input) {
  for (const LayerScores& layer : input.scores.layers) {
    for (const auto& [name, sum] : layer.sums) {
      if (sum.reduction != Reduction::kNone) continue;
      throw UserError(
          "merge",
          input.name,
          fmt::format(
              "score {} can't be merged: it is made of its experts' second "
              "moments, which were not kept; analyze all the data in one run, "
              "or each part with --keep-moments ({} each)",
              name.substr(0, name.find('.')),
              format_bytes(moment_bytes(input.scores))));
    }
  }
}

std::vector<std::string> checksums(const ScoreFile& file) {
  const Json list = file.run.value("data_checksums", Json::array());
  std::vector<std::string> sums;
  for (const Json& sum : list) sums.push_back(sum.dump());
  return sums;
}

void check_same_values(
    const artifact::Sum& a,
    const artifact::Sum& b,
    const std::string& name,
    const MergeInput& input) {
  if (a.values.equal(b.values)) return;
  throw UserError(
      "merge",
      input.name,
      fmt::format(
          "sum {} is not the data's and should be the same in all runs, found "
          "other values; run fettle analyze again",
          name));
}

// Leaves the input's layer without sums.
void reduce(LayerScores& into, MergeInput& input, std::size_t l) {
  const at::NoGradGuard no_grad;
  auto& others = input.scores.layers[l].sums;
  for (auto& [name, sum] : into.sums) {
    const artifact::Sum other = std::move(others.extract(name).mapped());
    if (sum.reduction == Reduction::kSame) {
      check_same_values(sum, other, name, input);
    } else if (sum.reduction == Reduction::kMax) {
      sum.values = at::maximum(sum.values, other.values);
    } else {
      sum.values = sum.values + other.values;
    }
  }
}

// The names of a run's data files, without their folders.
std::string data_name(const ScoreFile& file) {
  std::vector<std::string> names;
  for (const Json& data : file.run.value("data", Json::array())) {
    const std::string text =
        data.is_string() ? data.get<std::string>() : data.dump();
    names.push_back(std::filesystem::path(text).stem().string());
  }
  return fmt::format("{}", fmt::join(names, " + "));
}

void add_runs(const ScoreFile& file, std::vector<artifact::MergedRun>& runs) {
  if (!file.merged.empty()) {
    runs.insert(runs.end(), file.merged.begin(), file.merged.end());
    return;
  }
  artifact::MergedRun run{data_name(file), file.tokens, {}};
  run.ranks.resize(file.layers.size());
  for (const std::string& score : data_scores(file)) {
    const auto ranks = rank_neurons(file, score);
    for (std::size_t l = 0; l < ranks.size(); ++l) {
      if (!file.layers[l].widths.empty()) run.ranks[l][score] = ranks[l];
    }
  }
  runs.push_back(std::move(run));
}

// "math", "math (2)": a number distinguishes the shards of one file.
void number_names(std::vector<artifact::MergedRun>& runs) {
  std::set<std::string> taken;
  for (artifact::MergedRun& run : runs) {
    const std::string name = run.name.empty() ? "data" : run.name;
    run.name = name;
    for (int i = 2; !taken.insert(run.name).second; ++i) {
      run.name = fmt::format("{} ({})", name, i);
    }
  }
}

class Merging {
 public:
  explicit Merging(MergeInput first) : all_(std::move(first)) {
    check_mergeable(all_);
    check_data(all_);
    add_runs(all_.scores, runs_);
  }

  void add(MergeInput input) {
    check_same_run(all_, input);
    check_layers(all_, input);
    check_data(input);
    add_runs(input.scores, runs_);
    add_counts(input.scores);
    for (std::size_t l = 0; l < all_.scores.layers.size(); ++l) {
      reduce(all_.scores.layers[l], input, l);
    }
  }

  ScoreFile finish() && {
    ScoreFile& merged = all_.scores;
    number_names(runs_);
    merged.merged = std::move(runs_);
    const std::vector<std::string> names = merged.all_scores();
    for (std::size_t l = 0; l < merged.layers.size(); ++l) {
      finish_layer(merged.layers[l], names, static_cast<std::int64_t>(l));
    }
    return std::move(merged);
  }

 private:
  void check_data(const MergeInput& input) {
    for (const std::string& sum : checksums(input.scores)) {
      const auto [found, added] = seen_.emplace(sum, input.name);
      if (added) continue;
      throw UserError(
          "merge",
          input.name,
          fmt::format(
              "holds the same data as {}, which would count twice; leave one "
              "out",
              found->second));
    }
  }

  void add_counts(const ScoreFile& file) {
    Json& run = all_.scores.run;
    for (const char* list : {"data", "data_checksums"}) {
      if (!run.contains(list)) run[list] = Json::array();
      for (const Json& item : file.run.value(list, Json::array())) {
        run[list].push_back(item);
      }
    }
    for (const char* count : {"sequences", "loss_tokens"}) {
      run[count] = run.value(count, std::int64_t{0}) +
                   file.run.value(count, std::int64_t{0});
    }
    all_.scores.tokens += file.tokens;
  }

  MergeInput all_;
  std::vector<artifact::MergedRun> runs_;
  std::map<std::string, std::string> seen_;  // checksums and their inputs
};

}  // namespace

ScoreFile merge_scores(
    std::size_t count, const std::function<MergeInput(std::size_t)>& input) {
  if (count < 2) {
    throw UserError(
        "merge",
        "--merge",
        fmt::format("expected two folders of scores or more, found {}", count));
  }
  Merging merging(input(0));
  for (std::size_t i = 1; i < count; ++i) merging.add(input(i));
  return std::move(merging).finish();
}

std::int64_t merge_bytes(const std::vector<std::filesystem::path>& folders) {
  // Scores of the first file's layers are made anew, which takes copies.
  constexpr std::int64_t kLayerCopies = 3;
  std::int64_t most = 0;
  std::int64_t first = 0;
  std::int64_t layer = 0;
  for (const auto& folder : folders) {
    const auto layers = artifact::ScoreFile::layer_bytes(folder);
    const std::int64_t bytes =
        std::accumulate(layers.begin(), layers.end(), std::int64_t{0});
    if (first == 0) first = bytes;
    most = std::max(most, bytes);
    for (const std::int64_t one : layers) layer = std::max(layer, one);
  }
  return first + most + kLayerCopies * layer;
}

}  // namespace fettle::analyze
