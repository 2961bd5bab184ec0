// SPDX-License-Identifier: Apache-2.0
// What each weight of a model would lose by each of some schemes, measured in
// one sweep of the calibration data through the unquantized model, and kept in
// quant_errors.json: a run that was killed goes on, and other budgets need no
// other sweep.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/progress.h"
#include "model/weights/model_reader.h"
#include "quant/quantize.h"

namespace fettle::quant {

struct MeasuredOption {
  Scheme scheme;
  std::int64_t bytes = 0;  // stored
  double error = 0;        // see QuantizedWeight; 0 of what is kept
  double nats = 0;         // a token that it costs; 0 where rows have no prices
};

struct MeasuredWeight {
  model::WeightId id = {};
  std::int64_t tokens = 0;  // of its statistics
  double energy = 0;        // see QuantizedWeight
  std::vector<MeasuredOption> options = {};
};

struct LayerErrors {
  std::vector<MeasuredWeight> weights = {};
  // Squares of what leaves the layer, over all tokens; 0 without data.
  double outputs = 0;
};

struct QuantErrors {
  Json identity = Json::object();
  std::int64_t tokens = 0;  // of calibration
  // First what is in no layer; then the layers, those that are done.
  std::vector<LayerErrors> layers = {};

  // Whether they were measured with prices.
  bool priced() const;

  Json to_json() const;
  // Throws UserError on another format, another identity, and what can't have
  // been measured of a model of `config`.
  static QuantErrors from_json(
      const Json& json,
      const model::ModelConfig& config,
      const Json& identity,
      const std::string& subject);
};

// The weights of a layer that are measured, in the order in which errors lie;
// of layer -1 those that are in no layer.
std::vector<model::WeightId> measured_weights(
    const model::ModelConfig& config, std::int64_t layer);

struct MeasureOptions {
  // The schemes for every weight that may be quantized, at least one; where it
  // is one, there is no choice.
  std::function<std::vector<Scheme>(const model::WeightId&)> candidates;
  GptqOptions gptq = {};
  std::int64_t moment_bytes = std::int64_t{2} << 30;
  // What errors cost, so that options have nats; null: not known.
  const artifact::RowPrices* prices = nullptr;
  // What `file` must not differ in: model, data, options.
  Json identity = Json::object();
  Reporter* reporter = nullptr;  // null: silent
};

// Measures what `file` does not have yet, layer by layer, and adds it there.
// `data` may be null under rtn.
QuantErrors measure_errors(
    const model::ModelReader& reader,
    const MeasureOptions& options,
    Calibrated* data,
    const std::filesystem::path& file);

}  // namespace fettle::quant
