// SPDX-License-Identifier: Apache-2.0
// One price for cutting and rounding: what each expert loses by each width, and
// each matrix by each scheme, in nats a token, the expected KL from the model
// as it is. Losses of different matrices add up: what one does to the output
// has little to do with what another does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "artifact/row_prices.h"
#include "artifact/score_file.h"
#include "chain/calibration.h"
#include "model/weights/model_reader.h"
#include "quant/errors.h"

namespace fettle::chain {

// What rounding one matrix comes to, at its full size.
struct SchemePrice {
  quant::Scheme scheme = {};
  double nats = 0;
};

// A matrix of an expert.
struct ExpertMatrix {
  model::WeightId id = {};
  std::vector<SchemePrice> schemes = {};
  // [I + 1]: the share of its rounding's cost that is left at each width, by
  // the mean squares of the activations.
  std::vector<double> share = {};
};

struct ExpertPrice {
  std::int64_t layer = 0;
  std::int64_t expert = 0;
  std::vector<std::uint32_t> order = {};  // neurons, the most needed first
  // [I + 1]: nats of keeping the first so many of them, output weights
  // refitted.
  std::vector<double> cut = {};
  std::vector<ExpertMatrix> matrices = {};
  double tokens = 0;            // share of the tokens that choose it
  std::int64_t bias_bytes = 0;  // a neuron

  std::int64_t width() const { return static_cast<std::int64_t>(order.size()); }
};

// A matrix of no routed expert.
struct OtherMatrix {
  model::WeightId id = {};
  std::vector<SchemePrice> schemes = {};
  std::vector<std::int64_t> bytes = {};  // [schemes]
};

struct PriceTable {
  std::vector<ExpertPrice> experts = {};
  std::vector<OtherMatrix> others = {};
  // Bytes of everything that nothing is chosen for.
  std::int64_t fixed_bytes = 0;
  quant::GridOptions grid = {};  // that the experts are rounded on
  // How the above, which the second order tells, become what is expected.
  Calibration calibration = {};
};

struct PriceInput {
  const model::ModelReader& reader;
  const artifact::ScoreFile& scores;  // with obs, of drawn targets
  const artifact::RowPrices& prices;
  const quant::QuantErrors& errors;  // measured with those prices
  quant::GridOptions grid = {};
};

// Throws UserError where scores, prices and errors are not of one model.
PriceTable price_table(const PriceInput& input);

// Nats of cutting an expert to `width` neurons, and of rounding it there: by
// the table's calibration, before its curve.
double cut_nats(
    const PriceTable& table, const ExpertPrice& expert, std::int64_t width);
double growth_at(
    const PriceTable& table, const ExpertPrice& expert, std::int64_t width);

// Leaves out a scheme; throws UserError where a matrix has no other.
void forbid(PriceTable& table, const quant::Scheme& scheme);

// Bytes of a matrix of an expert that keeps `width` neurons.
std::int64_t matrix_bytes(
    const model::ModelReader& reader,
    const model::WeightId& id,
    const quant::Scheme& scheme,
    const quant::GridOptions& grid,
    std::int64_t width);

}  // namespace fettle::chain
