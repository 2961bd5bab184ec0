// SPDX-License-Identifier: Apache-2.0
// What methods of sparse units share: from options to parts, and their memory.
#pragma once

#include <vector>

#include "tune/method/method.h"
#include "tune/options/tune_options.h"
#include "tune/sparse/sparse_blocks.h"

namespace fettle::tune {

// Whether units are chosen in each layer by itself.
bool by_layer(const TuneOptions& options);

SparseOptions sparse_options(const TuneOptions& options, const char* method);

// "8x16" as a shape. Throws UserError about `option` on anything else.
BlockShape parse_block(const std::string& text, const char* option);

// Bytes of a share `frac` of the blocks of `roles`, with layers computed on
// `device`.
PartBytes block_bytes(
    const TuneOptions& options,
    const model::ModelConfig& config,
    const SparseBlocksOptions& blocks,
    at::Device device);

// Bytes of RAM while units are chosen, of `all` in the model, the most in one
// layer being `most`: their scores and ranking.
double ranking_bytes(const TuneOptions& options, double all, double most);

// Rows that new choices leave frozen, as a share of the chosen ones.
double frozen_share(const TuneOptions& options);

}  // namespace fettle::tune
