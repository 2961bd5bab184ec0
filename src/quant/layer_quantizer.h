// SPDX-License-Identifier: Apache-2.0
// Quantizes the weights of a layer, those that share an input together.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "artifact/row_prices.h"
#include "core/error.h"
#include "core/json.h"
#include "kernels/packed_matrix.h"
#include "model/family/weight_table.h"
#include "model/weights/model_reader.h"
#include "quant/hessians.h"
#include "quant/scheme.h"

namespace fettle::quant {

// An error that going on can't avoid: the same weights and data fail again.
class NotFiniteError : public UserError {
 public:
  using UserError::UserError;
};

enum class Method { kRtn, kGptq };

// What is done for experts that few tokens chose.
enum class Starved {
  kMean,  // their moments are drawn toward the layer's
  kRtn,   // those that no token chose are rounded to nearest
};

struct GptqOptions {
  Method method = Method::kGptq;
  GridOptions grid = {};
  double damping = 0.01;   // of the mean diagonal
  int refine = 2;          // passes of kernels::refine behind gptq
  bool act_order = false;  // columns by falling importance
  Starved starved = Starved::kMean;
  HessianOptions hessians = {};

  Json to_json() const;
};

using WeightScheme = std::pair<model::WeightId, Scheme>;

// One weight as quantized.
struct QuantizedWeight {
  model::WeightId id = {};
  kernels::PackedMatrix matrix = {};
  std::int64_t tokens = 0;  // of its statistics
  bool scarce = false;      // fewer tokens than columns
  // Squared error of its output over the tokens seen, and the output's own
  // square; of the weights themselves where there are no statistics.
  double error = 0;
  double energy = 0;
  // The same with each row's errors at its price, not yet a token; 0 where rows
  // have none.
  double cost = 0;
};

class LayerQuantizer {
 public:
  // `of_layer` has the moments of what enters the experts, or is empty. All
  // must outlive the quantizer. Moments are on `device`, which does the work.
  LayerQuantizer(
      const model::ModelReader& reader,
      const GptqOptions& options,
      const Hessian& of_layer,
      at::Device device = at::kCPU);

  // What errors cost; null: nothing is told of it. Must outlive the quantizer.
  void set_prices(const artifact::RowPrices* prices) { prices_ = prices; }

  at::Device device() const { return device_; }

  // Weights with one input, each by its scheme (not keep). `hessian` is null
  // where there is no data. Thread-safe. Throws NotFiniteError naming the
  // weight when it, the moments, or the squares of its outputs are not finite.
  std::vector<QuantizedWeight> quantize(
      const std::vector<WeightScheme>& weights, const Hessian* hessian) const;

 private:
  // What the rounding of all weights with one input is led by.
  struct Guide {
    // Or undefined. `damped`: moments with the damping on their diagonal.
    at::Tensor moments, damped, importance, factor, order;
    GridOptions grid;
  };
  Guide guide(
      const model::WeightId& id,
      std::int64_t cols,
      const Hessian* hessian) const;
  at::Tensor moments_of(
      const model::WeightId& id,
      std::int64_t cols,
      const Hessian& hessian) const;
  QuantizedWeight quantize_one(
      const WeightScheme& weight, const Guide& guide) const;
  struct Rounded;
  // Rounds the rows from `first` on, and adds them to the weight.
  void round(
      const at::Tensor& rows,
      std::int64_t first,
      const kernels::QuantGrid& grid,
      const Guide& guide,
      Rounded& into) const;

  const model::ModelReader& reader_;
  const GptqOptions& options_;
  const Hessian& of_layer_;
  at::Device device_;
  const artifact::RowPrices* prices_ = nullptr;
};

// Bytes that the quantization of one site takes beside its moments, and that of
// one weight without any.
std::int64_t site_working_bytes(std::int64_t rows, std::int64_t cols);
std::int64_t rows_working_bytes(
    std::int64_t rows, std::int64_t cols, bool coded);

}  // namespace fettle::quant
