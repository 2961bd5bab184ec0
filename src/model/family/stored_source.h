// SPDX-License-Identifier: Apache-2.0
// In which form the tool that wrote a model says that its weights are stored:
// "quantization_config" of config.json.
#pragma once

#include <cstdint>
#include <vector>

#include "core/json.h"

namespace fettle::model {

enum class SourceMethod {
  kPlain,              // no quantization_config
  kFettle,             // packed by Fettle: each tensor describes itself
  kFp8,                // fp8 codes with a scale a block
  kCompressedTensors,  // integers in words, or fp8 and int8 codes
  kGptq,
  kAwq,
  kMxfp4,  // 4-bit floats with a power of two a block of 32
};

// Codes of one kind: the weights that share a scale, and the bits of a code.
struct CodeScheme {
  std::int64_t block_rows = 0;  // 0: as many as the matrix has
  std::int64_t block_cols = 0;
  std::int64_t bits = 8;
};

struct StoredSource {
  SourceMethod method = SourceMethod::kPlain;
  // Those that the model has; which a weight has its tensors' shapes tell. One
  // but of compressed-tensors.
  std::vector<CodeScheme> schemes = {};
  // kGptq: stored zero points are one less than those meant (version 1).
  bool zeros_less_one = false;
};

// `config` is config.json; a model with several parts may say it of its text
// part. Throws UserError naming the key of a form that Fettle does not read.
StoredSource parse_stored_source(const JsonObject& config);

}  // namespace fettle::model
