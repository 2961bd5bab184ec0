// SPDX-License-Identifier: Apache-2.0
// The quant stage: a model in, the same with packed weights out. One sweep over
// the calibration data, layer by layer: the moments of a layer's inputs are
// summed, its weights quantized, and the tokens pass on through the layer as it
// now is, so that later layers make up for earlier ones.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "artifact/model_writer.h"
#include "core/json.h"
#include "core/progress.h"
#include "model/causal_lm.h"
#include "model/layers/token_batch.h"
#include "quant/layer_quantizer.h"
#include "store/activation_store.h"
#include "sweep/micro_batches.h"

namespace fettle::quant {

// The calibration data that a sweep passes.
struct Calibrated {
  model::CausalLm& model;  // with the reader that is quantized
  std::vector<model::TokenBatch> data;
  store::ActivationStoreOptions activations = {};
  sweep::Division division = {};  // `data` is this rank's
};

struct QuantOptions {
  // The scheme of every weight that may be quantized.
  std::function<Scheme(const model::WeightId&)> scheme;
  GptqOptions gptq = {};
  // Bytes of moments held at once: more experts take several passes.
  std::int64_t moment_bytes = std::int64_t{2} << 30;
  // What the run must not differ in to be resumed: model, data, options.
  Json identity = Json::object();
  std::string input_fingerprint = {};
  // What to do with heads that predict further tokens.
  artifact::Mtp mtp = artifact::Mtp::kAuto;
  Reporter* reporter = nullptr;  // null: silent
};

// The results for the weights of one role in a layer.
struct RoleRecord {
  std::int64_t weights = 0;  // numbers
  std::int64_t bytes = 0;    // stored, scales, tables and headers included
  double error = 0;          // sums over matrices, see QuantizedWeight
  double energy = 0;
  std::int64_t matrices = 0;
  std::int64_t scarce = 0;  // matrices with fewer tokens than columns
  std::int64_t unseen = 0;  // with none
};

// 0 where there is no weight.
double bits_per_weight(const RoleRecord& role);

struct LayerRecord {
  std::int64_t layer = -1;  // -1: embeddings and head
  std::map<std::string, RoleRecord> roles = {};
  // [E] of a role of experts: bits a weight, everything stored counted, to
  // three decimals; 0 of an expert without a neuron.
  std::map<std::string, std::vector<double>> expert_bits = {};
  double seconds = 0;  // of this process

  // The layer and its roles.
  Json to_json() const;
  // All but the seconds, which differ from run to run.
  Json note() const;
  // Reads a note. Throws UserError on what is none.
  static LayerRecord from_json(const Json& json);
};

struct QuantResult {
  artifact::ModelSize before, after;
  std::int64_t tokens = 0;  // of calibration
  std::vector<LayerRecord> layers;

  Json to_json() const;
  Json timings() const;  // seconds by layer
};

// Writes the quantized model, quant_report.json and timings.json into `folder`,
// which exists; layers that an earlier run of the same identity left there
// whole are taken over. `data` may be null under rtn. Where ranks divide the
// data, rank 0 alone writes, and has the whole result.
QuantResult quantize_model(
    const model::ModelReader& reader,
    const QuantOptions& options,
    Calibrated* data,
    const std::filesystem::path& folder);

// The micro-batch of the unfinished run that `folder` holds, or none: the same
// one gives the same bits. Throws UserError where it is damaged.
std::optional<std::int64_t> resumed_micro_batch(
    const std::filesystem::path& folder);

}  // namespace fettle::quant
