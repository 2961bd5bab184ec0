// SPDX-License-Identifier: Apache-2.0
// What errors in a model's matrices cost, in nats a token: the expected KL of
// its predictions, by the Fisher information of each output of each matrix.
// Rows of a matrix W count by themselves: with W off by D and its inputs x
// weighted as the quant stage weights them, w,
//   KL a token = sum over rows j of price_j (mean over tokens of w^2 (D_j x)^2)
// and of embeddings and head, whose inputs nobody weights,
//   KL a token = sum over rows j of price_j |D_j|^2.
// Also the neurons' energy, the squares of what they add to their expert's
// output, by which rounding costs less where some are cut.
// Stored as row_prices.safetensors.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "model/family/model_config.h"
#include "model/family/weight_table.h"

namespace fettle::artifact {

inline constexpr const char* kRowPricesFile = "row_prices.safetensors";

// fp32; of an expert's role the rows of all experts, after each other.
using RolePrices = std::map<model::Role, at::Tensor>;

struct RowPrices {
  std::string model_fingerprint = {};
  std::int64_t tokens = 0;  // that they were measured on
  RolePrices globals = {};
  std::vector<RolePrices> layers = {};
  // [S] fp32: sums of (p h)^2 over tokens, p the mixing weight; of a layer
  // without experts undefined.
  std::vector<at::Tensor> energy = {};

  // [rows] of the weight, or undefined where none were measured.
  at::Tensor of(
      const model::ModelConfig& config, const model::WeightId& id) const;

  void save(const std::filesystem::path& folder) const;
  // Throws UserError on what is no such file, on values that are not finite,
  // and unless it is of this very model.
  static RowPrices load(
      const std::filesystem::path& folder,
      const model::ModelConfig& config,
      const std::string& fingerprint);
};

}  // namespace fettle::artifact
