// SPDX-License-Identifier: Apache-2.0
// The tensors that make up a coded weight, found by name and checked.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/family/stored_source.h"
#include "model/weights/coded_form.h"

namespace fettle::model {

enum class PartKind {
  kScales,       // F32, BF16, F16
  kBlockScales,  // these, or powers of two of 8 bits
  kWords,        // I32
  kBytes,        // I8
  kUnsigned,     // U8
};

// What a reader asks for: X.weight, [rows, cols].
struct WantedWeight {
  std::string name;
  const io::TensorInfo* tensor = nullptr;  // of that name, or null
  std::vector<std::int64_t> shape;
};

class CodedParts {
 public:
  // The tensor of a name, else null.
  using Lookup = std::function<const io::TensorInfo*(const std::string&)>;
  using Shape = std::vector<std::int64_t>;

  CodedParts(const io::Checkpoint& checkpoint, Lookup lookup)
      : checkpoint_(checkpoint), lookup_(std::move(lookup)) {}

  const io::TensorInfo* find(const std::string& name) const {
    return lookup_(name);
  }
  // Throw UserError naming the tensor where it is missing, or of another type
  // or shape; `why` says what asks for the shape.
  const io::TensorInfo& require(const std::string& name, PartKind kind) const;
  StoredSpan require(
      const std::string& name,
      PartKind kind,
      const Shape& shape,
      const std::string& why) const;

  const io::Checkpoint& checkpoint() const { return checkpoint_; }

 private:
  const io::Checkpoint& checkpoint_;
  Lookup lookup_;
};

[[noreturn]] void refuse_part(
    const std::string& name, const std::string& message);
void require_shape(
    const io::TensorInfo& tensor,
    const CodedParts::Shape& shape,
    const std::string& why);
StoredSpan whole(const io::TensorInfo& tensor);
std::int64_t blocks_in(std::int64_t side, std::int64_t block);

// Makes `m` have the grid of scales of this shape, by the first scheme of
// `source` that has as many for such a matrix. Throws UserError naming `scales`
// where none has.
void set_grid(
    const io::TensorInfo& scales,
    const std::vector<CodeScheme>& schemes,
    CodedMatrix& m);

// Rows of a weight in MXFP4, or of one of a stack [count, all, cols] of them.
struct WantedBlocks {
  std::string name;        // of the weight or stack, without _blocks
  std::int64_t count = 0;  // 0: no stack
  std::int64_t index = 0;  // in the stack
  std::int64_t first = 0;  // row
  std::int64_t step = 1;   // to the next row
  std::int64_t all = 0;    // rows of one
  std::int64_t rows = 0, cols = 0;
};
// Nothing where there are neither blocks nor scales of this name.
std::optional<CodedMatrix> find_mxfp4(
    const CodedParts& parts, const WantedBlocks& wanted);

// Weights whose codes lie in 32-bit words; nothing where there are no codes.
std::optional<CodedMatrix> find_packed_words(
    const CodedParts& parts,
    const StoredSource& source,
    const WantedWeight& wanted);
std::optional<CodedMatrix> find_gptq_words(
    const CodedParts& parts,
    const StoredSource& source,
    const WantedWeight& wanted);
std::optional<CodedMatrix> find_awq_words(
    const CodedParts& parts,
    const StoredSource& source,
    const WantedWeight& wanted);

}  // namespace fettle::model
