// SPDX-License-Identifier: Apache-2.0
// The keys of an architecture while they are collected.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "export/gguf/gguf_file.h"

namespace fettle::exporter {

// Refuses a model that llama.cpp would compute otherwise.
[[noreturn]] inline void refuse_shape(const std::string& why) {
  throw UserError(
      "export",
      "config.json",
      why +
          ", which llama.cpp does not compute for this family; use hf, "
          "compressed-tensors or gptq");
}

class KeyList {
 public:
  explicit KeyList(std::string_view architecture) : prefix_(architecture) {}

  void count(std::string_view key, std::int64_t value) {
    put(key, static_cast<std::uint32_t>(value));
  }
  void number(std::string_view key, double value) {
    put(key, static_cast<float>(value));
  }
  void put(std::string_view key, GgufValue value) {
    keys_.emplace_back(fmt::format("{}.{}", prefix_, key), std::move(value));
  }
  void general(std::string_view key, GgufValue value) {
    keys_.emplace_back(fmt::format("general.{}", key), std::move(value));
  }
  GgufKeys take() { return std::move(keys_); }

 private:
  std::string prefix_;
  GgufKeys keys_;
};

}  // namespace fettle::exporter
