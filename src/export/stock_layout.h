// SPDX-License-Identifier: Apache-2.0
// Configurations that a family's own keys can tell: experts alike in all
// layers, of one width.
#pragma once

#include <cstdint>

#include "export/export.h"
#include "model/family/model_config.h"

namespace fettle::exporter {

// Experts' widths are filled up to multiples of this. Grouped products, which
// transformers runs experts by unless told otherwise, want rows of whole 16
// bytes: 8 numbers of 16 bits.
inline constexpr std::int64_t kLoaderUnit = 8;

// The least multiple of `unit` from `n` on.
std::int64_t rounded_up(std::int64_t n, std::int64_t unit);

// `config` in the exported type and without what is to be dropped. Throws
// UserError naming the layer that has what stock layouts have no place for:
// constants, condensers, another number of experts or top_k than the others.
model::ModelConfig stock_config(
    const model::ModelConfig& config, const ExportOptions& options);

// Of every expert, of shared experts' and of dense layers' MLPs; 0 where the
// model has none.
struct MlpWidths {
  std::int64_t expert = 0;
  std::int64_t shared = 0;
  std::int64_t dense = 0;
};
MlpWidths widest(const model::ModelConfig& config);

// `config`, which stock_config made, with all MLPs filled up to `widths`.
// Shared experts that the family counts in experts get the next wider whole
// number of them. Throws UserError where the family's keys can't tell it.
model::ModelConfig with_widths(
    const model::ModelConfig& config, const MlpWidths& widths);

}  // namespace fettle::exporter
