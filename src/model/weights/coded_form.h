// SPDX-License-Identifier: Apache-2.0
// A matrix [rows, cols] that another tool stored as codes with scales: a value
// is (level of its code - zero of its group) x scale of its group, in fp32.
// Groups are blocks of rows and columns; integers have groups of one row.
#pragma once

#include "model/weights/stored_form.h"

namespace fettle::model {

// Where the codes lie.
enum class CodeOrder {
  kBytes,        // [rows, cols], a byte each
  kRowWords,     // int32 [rows, words]: a dense stream along the row
  kInputWords,   // int32 [words, rows]: a dense stream along the columns (GPTQ)
  kOutputWords,  // int32 [cols, rows / 8]: AWQ's words along the rows
  kNibbles,      // [rows, cols / 2], the lower half of a byte first
};

// What a byte means before zero and scale.
enum class CodeLevel { kUnsigned, kSigned, kFp8, kFp4 };

// Where the zero points lie, one a group.
enum class ZeroOrder {
  kNone,        // `zero` stands for all
  kBytes,       // int8 [rows, groups]
  kRowWords,    // int32 [words, groups]: a dense stream along the rows
  kInputWords,  // int32 [groups, words]: a dense stream along the rows (GPTQ)
  kAwqWords,    // int32 [groups, rows / 8]: AWQ's words
};

struct CodedMatrix {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  StoredSpan codes = {};
  CodeOrder order = CodeOrder::kBytes;
  CodeLevel level = CodeLevel::kUnsigned;
  std::int64_t bits = 8;

  // Scales [grid_rows, grid_cols] of blocks, in which the matrix begins at row
  // `row_begin`. Stored the other way round where `inputs_first`.
  StoredSpan scales = {};
  std::int64_t grid_rows = 0;
  std::int64_t grid_cols = 0;
  std::int64_t block_rows = 1;
  std::int64_t block_cols = 1;
  std::int64_t row_begin = 0;
  bool inputs_first = false;
  // Rows of the file, of codes and of scales, from one of the matrix to the
  // next; of nibbles alone.
  std::int64_t row_step = 1;

  StoredSpan zeros = {};
  ZeroOrder zero_order = ZeroOrder::kNone;
  double zero = 0;         // of all, or added to each
  StoredSpan groups = {};  // int32 [cols]: each column's group; or none

  at::ScalarType type = at::kBFloat16;  // see StoredForm::type
  std::string name = {};
  bool blocks = false;  // whether codes may be copied block by block
};

class CodedForm : public StoredForm {
 public:
  explicit CodedForm(CodedMatrix matrix) : matrix_(std::move(matrix)) {}

  at::ScalarType type() const override { return matrix_.type; }
  std::string name() const override { return matrix_.name; }
  std::vector<StoredSpan> spans() const override;
  std::int64_t bytes() const override;
  // Throws UserError where a column's group is none of the matrix's, or a scale
  // of 4-bit floats is NaN.
  Rows open(const io::Checkpoint& checkpoint) const override;
  std::optional<BlockGrid> blocks() const override;
  BlockBytes read_blocks(const io::Checkpoint& checkpoint) const override;

 private:
  CodedMatrix matrix_;
};

}  // namespace fettle::model
