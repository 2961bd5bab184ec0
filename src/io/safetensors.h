// SPDX-License-Identifier: Apache-2.0
// The safetensors format: eight bytes with the length of a JSON header (little
// endian), the header, then the tensors' bytes. The header gives each tensor's
// dtype, shape and span of bytes. Reading accepts exactly what the reference
// implementation does: the spans cover the rest of the file without hole or
// overlap, so a file that parses is whole. Nothing but the header is kept.
// Source: https://github.com/huggingface/safetensors (README, "Format").
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/dtype.h"
#include "io/file.h"

namespace fettle::io {

// Text stored beside the tensors. Loaders ask for format "pt".
using Metadata = std::map<std::string, std::string>;

struct TensorInfo {
  std::string name{};
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape{};  // row-major; empty: one element
  std::uint64_t begin = 0;            // span in bytes from the file's start
  std::uint64_t end = 0;

  std::uint64_t bytes() const { return end - begin; }
};

// The reference's limit: a longer header is refused unread.
inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;

class SafetensorsFile {
 public:
  SafetensorsFile() = default;
  SafetensorsFile(SafetensorsFile&&) = default;
  SafetensorsFile& operator=(SafetensorsFile&&) = default;

  // Reads and checks the header. Throws UserError (stage "safetensors", the
  // file's name) on anything that breaks the format.
  static SafetensorsFile parse(const InputFile& file);

  // The tensors in the order of their bytes.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo* find(std::string_view name) const;  // null when absent
  const Metadata& metadata() const { return metadata_; }
  // Bytes before the first tensor: length field and header.
  std::uint64_t data_begin() const { return data_begin_; }

 private:
  std::vector<TensorInfo> tensors_;
  // By names that lie in tensors_, so that a copy would need its own.
  std::unordered_map<std::string_view, std::size_t> index_;
  Metadata metadata_;
  std::uint64_t data_begin_ = 0;
};

// A tensor that is going to be written.
struct TensorSpec {
  std::string name{};
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape{};

  // Throws UserError when the shape is negative or its size overflows.
  std::uint64_t bytes() const;
};

// Writes one file. The tensors are declared first, then their bytes follow in
// declared order. In the file they lie by falling element size, as the
// reference lays them, so that each is aligned to its own type.
class SafetensorsWriter {
 public:
  // Writes the header. Names must differ (InternalError).
  SafetensorsWriter(
      std::unique_ptr<OutputFile> out,
      std::vector<TensorSpec> tensors,
      Metadata metadata = {{"format", "pt"}});

  // The next bytes of tensor `name`: all of it, or a piece. Bytes for another
  // tensor than the one whose turn it is, or too many, are an InternalError.
  void write(std::string_view name, std::span<const std::byte> bytes);

  // Checks that every byte came (InternalError), then fsyncs and closes.
  void finish();

  std::uint64_t file_bytes() const { return file_bytes_; }

 private:
  void skip_full();

  std::unique_ptr<OutputFile> out_;
  std::vector<TensorInfo> tensors_;  // in declared order
  std::size_t current_ = 0;
  std::uint64_t written_ = 0;  // bytes of the current tensor
  std::uint64_t file_bytes_ = 0;
};

}  // namespace fettle::io
