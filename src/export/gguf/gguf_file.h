// SPDX-License-Identifier: Apache-2.0
// The GGUF container, version 3, little endian: "GGUF", the version, counts of
// tensors and keys, the keys with their values, for each tensor its name, sizes
// (the fastest first), type and place, then the tensors, each at a multiple of
// 32 bytes. Source: ggml, docs/gguf.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "io/file.h"

namespace fettle::exporter {

using GgufValue = std::variant<
    std::uint32_t,
    float,
    bool,
    std::string,
    std::vector<std::string>,
    std::vector<std::int32_t>,
    std::vector<float>,
    std::vector<bool>>;
using GgufKeys = std::vector<std::pair<std::string, GgufValue>>;

struct GgufTensor {
  std::string name = {};
  std::vector<std::int64_t> sizes = {};  // the fastest first
  std::uint32_t type = 0;
  std::uint64_t bytes = 0;
  std::uint64_t begin = 0;  // from the first tensor's place; set by the writer

  bool operator==(const GgufTensor&) const = default;
};

class GgufWriter {
 public:
  // Writes all that stands before the tensors.
  GgufWriter(
      std::unique_ptr<io::OutputFile> out,
      const GgufKeys& keys,
      std::vector<GgufTensor> tensors);

  // The next bytes of tensor `name`: all of it, or a piece, in declared order
  // (InternalError otherwise).
  void write(const std::string& name, std::span<const std::byte> bytes);
  // Checks that every byte came (InternalError), and closes.
  void finish();

  std::uint64_t total_bytes() const;  // of all tensors

 private:
  std::unique_ptr<io::OutputFile> out_;
  std::vector<GgufTensor> tensors_;
  std::uint64_t data_begin_ = 0;
  std::size_t current_ = 0;
  std::uint64_t written_ = 0;  // bytes of the current tensor
};

// What a file says of itself.
struct GgufHeader {
  GgufKeys keys;
  std::vector<GgufTensor> tensors;  // without their bytes' number
  std::uint64_t data_begin = 0;
};

// Reads back what GgufWriter wrote. Throws InternalError on anything else.
GgufHeader read_gguf(const io::InputFile& file);

}  // namespace fettle::exporter
