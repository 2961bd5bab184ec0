// SPDX-License-Identifier: Apache-2.0
// A tiny model with tokens to calibrate it on.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../artifact/tiny_model.h"
#include "model/causal_lm.h"
#include "quant/quantize.h"
#include "sweep/micro_batches.h"

namespace fettle::quant::testing {

using fettle::testing::random_data;
using fettle::testing::TemporaryFolder;
using fettle::testing::TinyModel;
using fettle::testing::TinyModelOptions;

// With a vocabulary that gives a layer more inputs than it has directions.
inline TinyModelOptions sample_options(const std::string& family) {
  TinyModelOptions options;
  options.family = family;
  options.changes = {{"vocab_size", 64}};
  return options;
}

class TinyCalibration {
 public:
  // Sequences of one token each (see layer_reference.h), ten a micro-batch.
  explicit TinyCalibration(
      const TinyModelOptions& options, std::int64_t tokens = 48)
      : TinyCalibration(
            options, random_data(tokens, 1, tiny_config(options).vocab_size)) {}

  TinyCalibration(
      const TinyModelOptions& options, const std::vector<model::Sequence>& data)
      : tiny_(options),
        model_(tiny_.path(), {}),
        batches_(sweep::micro_batches(data, 10, tiny_.config().vocab_size)) {}

  model::CausalLm& model() { return model_; }
  const model::ModelReader& reader() const { return model_.reader(); }
  const model::ModelConfig& config() const { return tiny_.config(); }
  const std::vector<model::TokenBatch>& batches() const { return batches_; }
  Calibrated data() { return {model_, batches_}; }

  at::Tensor ids() const {
    std::vector<at::Tensor> all;
    for (const model::TokenBatch& batch : batches_) all.push_back(batch.ids);
    return at::cat(all);
  }

 private:
  TinyModel tiny_;
  model::CausalLm model_;
  std::vector<model::TokenBatch> batches_;
};

}  // namespace fettle::quant::testing
