// SPDX-License-Identifier: Apache-2.0
// How a weight that is not plain lies in a checkpoint: what it is called, which
// bytes it takes, and how its values come out of them. Readers ask the form and
// know no scheme themselves. A plain weight, F32, BF16 or F16, has no form.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/checkpoint.h"
#include "model/weights/packed_weight.h"

namespace fettle::model {

// Bytes of a tensor.
struct StoredSpan {
  const io::TensorInfo* tensor = nullptr;  // held by the checkpoint
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

// The scales of a weight X in blocks of fp8 are the tensor X_scale_inv.
inline constexpr std::string_view kBlockScaleSuffix = "_scale_inv";

// Codes and scales of a weight X in MXFP4 are X_blocks and X_scales.
inline constexpr std::string_view kBlocksSuffix = "_blocks";
inline constexpr std::string_view kScalesSuffix = "_scales";

// A matrix of float codes with a scale a block of `rows` x `cols` of them;
// blocks at the edges are short. Codes are fp8, or two of MXFP4 in a byte.
struct BlockGrid {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  io::DType scale_type = io::DType::kF32;
  std::int64_t bits = 8;  // of a code

  // Bytes of the codes of a matrix of this shape.
  std::int64_t code_bytes(const std::vector<std::int64_t>& shape) const {
    return shape[0] * (shape[1] * bits / 8);
  }

  // Blocks of a matrix of this shape: the shape of its scales.
  std::vector<std::int64_t> grid(const std::vector<std::int64_t>& shape) const {
    return {(shape[0] + rows - 1) / rows, (shape[1] + cols - 1) / cols};
  }
  bool operator==(const BlockGrid&) const = default;
};

class StoredForm {
 public:
  virtual ~StoredForm() = default;

  // The type in which the weight is written where it is written plain.
  virtual at::ScalarType type() const = 0;
  // "int4", "fp8 in blocks of 128 x 128": for people.
  virtual std::string name() const = 0;
  // All bytes that the values depend on, always in one order.
  virtual std::vector<StoredSpan> spans() const = 0;
  // That the weight alone takes: another's rows may lie between its own.
  virtual std::int64_t bytes() const;

  // Fills `out`, fp32 [n, cols], with the values of n rows from `first` on.
  using Rows = std::function<void(std::int64_t first, const at::Tensor& out)>;
  // Reads what all rows share. The checkpoint and the form must outlive the
  // result, which any number of threads may call. Throws UserError where a
  // packed weight is damaged.
  virtual Rows open(const io::Checkpoint& checkpoint) const = 0;

  // Of a weight packed by Fettle, else null.
  virtual const PackedHeader* packed() const { return nullptr; }
  // Of a matrix whose codes can be copied block by block.
  virtual std::optional<BlockGrid> blocks() const { return std::nullopt; }
  struct BlockBytes {
    at::Tensor codes;   // U8 [rows, bytes of a row]
    at::Tensor scales;  // U8 [rows of blocks, bytes of their scales]
  };
  // Of such a matrix.
  virtual BlockBytes read_blocks(const io::Checkpoint& checkpoint) const;
};

// A weight packed by Fettle, in one tensor.
class PackedForm : public StoredForm {
 public:
  PackedForm(const io::TensorInfo& tensor, const PackedHeader& header)
      : tensor_(tensor), header_(header) {}

  at::ScalarType type() const override { return at::kFloat; }
  std::string name() const override { return packed_name(header_); }
  std::vector<StoredSpan> spans() const override;
  Rows open(const io::Checkpoint& checkpoint) const override;
  const PackedHeader* packed() const override { return &header_; }

 private:
  const io::TensorInfo& tensor_;
  PackedHeader header_;
};

// The bytes of a span, U8.
at::Tensor read_span(const io::Checkpoint& checkpoint, const StoredSpan& span);

}  // namespace fettle::model
