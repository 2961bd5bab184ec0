// SPDX-License-Identifier: Apache-2.0
// The scores that analyze writes and trim reads: scores.safetensors (arrays)
// and scores.json (what was measured, on which model and data, and the arrays'
// checksum). They also hold the
// sums that scores are made of, so that scores of several runs can be
// merged without the model.
//
// Arrays on file, S = sum of a layer's widths, E = its experts:
//   layers.{l}.neuron.{score}      [S]  fp32, neurons of expert 0 first
//   layers.{l}.expert.{score}      [E]  fp32
//   layers.{l}.mean_h              [S]  fp32, mean of h over the expert's
//                                       tokens
//   layers.{l}.tokens              [E]  int64, tokens that chose the expert
//   layers.{l}.sums.{score}.{sum}  [S], [E], [1] or [P]  fp64
//   layers.{l}.ranks.{run}.{score} [S]  int32, of merged files only
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"

namespace fettle::artifact {

enum class Unit { kNeuron, kExpert, kLayer, kPair };

// How the values of two runs become those of both: kSame are the model's and
// not the data's, kNone can't be made from them.
enum class Reduction { kSum, kMax, kSame, kNone };

// What scores are made of: one value a neuron [S], an expert [E], a layer [1],
// or a pair of neurons of one expert [sum of I^2], fp64 on the CPU.
struct Sum {
  Unit unit = Unit::kNeuron;
  Reduction reduction = Reduction::kSum;
  at::Tensor values;
};

struct LayerScores {
  std::vector<std::int64_t> widths;          // [E]; empty for a dense layer
  std::map<std::string, at::Tensor> neuron;  // score name -> [S]
  std::map<std::string, at::Tensor> expert;  // score name -> [E]
  at::Tensor mean_h;                         // [S]; 0 without tokens
  at::Tensor tokens;                         // [E] int64
  // By "score.sum", and "base.sum" for the two above and the entropy.
  std::map<std::string, Sum> sums;
  // Mean over tokens of the entropy of the router's distribution, nats.
  double router_entropy = 0;

  std::int64_t num_experts() const {
    return static_cast<std::int64_t>(widths.size());
  }
  std::int64_t total_width() const;  // S
};

// One of the runs that a file was merged from.
struct MergedRun {
  std::string name;         // of its data
  std::int64_t tokens = 0;  // calibration tokens
  // By layer, score name -> [S] int32: the neuron's place among all of the
  // model, 0 the most important.
  std::vector<std::map<std::string, at::Tensor>> ranks;
};

struct ScoreFile {
  std::string model_fingerprint;  // of the model that was scored
  std::string version;            // of the program that scored
  std::int64_t tokens = 0;        // calibration tokens
  std::vector<LayerScores> layers;
  std::vector<MergedRun> merged;  // empty where one run made the file
  Json run = Json::object();      // options, data files, seed, timings

  // Names of the scores that every sparse layer has, sorted.
  std::vector<std::string> neuron_scores() const;
  std::vector<std::string> expert_scores() const;
  // The former, then the latter.
  std::vector<std::string> all_scores() const;

  // Writes both files into `folder` (which exists).
  void save(const std::filesystem::path& folder) const;
  // Throws UserError on a file of another format, another checksum, a missing
  // array, a wrong shape or dtype, or a value that is not finite.
  static ScoreFile load(const std::filesystem::path& folder);
  // Bytes of each layer's arrays on file, which takes next to no memory. Throws
  // UserError on what is no file of scores.
  static std::vector<std::int64_t> layer_bytes(
      const std::filesystem::path& folder);
};

}  // namespace fettle::artifact
