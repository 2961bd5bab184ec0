// SPDX-License-Identifier: Apache-2.0
// Finds the tensors of weights that another tool stored in few bits, by the
// names that the tool gives them, and checks them against each other. A weight
// X.weight is, [out, in] with a scale for each block or group:
//
//   fp8                 X.weight F8_E4M3, X.weight_scale_inv; of stacks of
//                       experts X and X_scale_inv
//   compressed-tensors  X.weight F8_E4M3 or I8, X.weight_scale; or
//                       X.weight_packed, X.weight_scale, X.weight_shape; each
//                       with X.weight_zero_point, X.weight_g_idx where needed
//   gptq                X.qweight, X.scales, X.qzeros, X.g_idx
//   awq                 X.qweight, X.scales, X.qzeros
//   mxfp4               X_blocks, X_scales, of stacks of experts and of
//                       X.weight
//
// Sources: integrations/finegrained_fp8.py and mxfp4.py of transformers,
// compressors of compressed-tensors, qlinear/ of GPTQModel,
// awq/utils/packing_utils.py of AutoAWQ.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/weights/coded_parts.h"

namespace fettle::model {

class CodedFinder {
 public:
  // `type`: that in which weights are written where they are written plain.
  CodedFinder(StoredSource source, CodedParts parts, at::ScalarType type)
      : source_(std::move(source)), parts_(std::move(parts)), type_(type) {}

  // The tensors of a weight, codes first; none where it is plain or not there.
  struct Found {
    std::shared_ptr<const StoredForm> form = nullptr;
    std::vector<const io::TensorInfo*> tensors = {};
  };
  // Throws UserError naming a part that is missing, or of another type or shape
  // than the codes ask for.
  Found find(const WantedWeight& wanted) const;

  // Rows of one matrix of a stack [count, rows, cols] of fp8.
  struct Slice {
    std::int64_t index = 0;
    std::int64_t first = 0;
    std::int64_t rows = 0;
  };
  // None where `stack` is no fp8.
  Found find(const io::TensorInfo& stack, const Slice& slice) const;

  // Rows of a stack of MXFP4; none where there is no such.
  Found find(const WantedBlocks& wanted) const;

  // Of a tensor that no weight took: whether the tool leaves it and it changes
  // no weight; else what it may belong to, or nothing.
  bool is_leftover(const io::TensorInfo& tensor) const;
  std::string why_stray(const io::TensorInfo& tensor) const;

 private:
  std::optional<CodedMatrix> find_matrix(const WantedWeight& wanted) const;
  std::optional<CodedMatrix> find_bytes(
      const WantedWeight& wanted, const std::string& scale_name) const;
  Found finish(CodedMatrix matrix) const;

  StoredSource source_;
  CodedParts parts_;
  at::ScalarType type_;
};

}  // namespace fettle::model
