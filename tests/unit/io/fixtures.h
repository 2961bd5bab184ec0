// SPDX-License-Identifier: Apache-2.0
// What the io tests share: a folder that removes itself, and safetensors files
// assembled byte by byte, so that broken ones can be made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "../temporary_folder.h"

namespace fettle::io {

using fettle::TemporaryFolder;

inline std::vector<std::byte> to_bytes(const std::string& text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_text(
    const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string length_field(std::uint64_t length) {
  std::string field;
  for (int i = 0; i < 8; ++i) {
    field += static_cast<char>(length >> (8 * i) & 0xff);
  }
  return field;
}

// A safetensors file with this header and this many bytes of data.
inline std::string safetensors_text(
    const std::string& header, std::size_t data_bytes) {
  std::string text = length_field(header.size()) + header;
  for (std::size_t i = 0; i < data_bytes; ++i) {
    text += static_cast<char>(i & 0xff);
  }
  return text;
}

}  // namespace fettle::io
