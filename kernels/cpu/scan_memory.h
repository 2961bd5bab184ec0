// SPDX-License-Identifier: Apache-2.0
// Scratch memory of a task of a scan, aligned to cache lines, which vectors
// would else lie across.
#pragma once

#include <cstdint>
#include <memory>

namespace fettle::kernels::cpu {

class ScanMemory {
 public:
  explicit ScanMemory(std::int64_t values)
      : memory_(new float[static_cast<std::size_t>(values) + kLine]) {}
  float* get() const {
    const auto at = reinterpret_cast<std::uintptr_t>(memory_.get());
    return memory_.get() + (kLine - at / sizeof(float) % kLine) % kLine;
  }

 private:
  static constexpr std::size_t kLine = 16;  // values
  std::unique_ptr<float[]> memory_;
};

}  // namespace fettle::kernels::cpu
