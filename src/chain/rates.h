// SPDX-License-Identifier: Apache-2.0
// How fast a machine multiplies and reads: measured in a moment, or assumed
// where the machine is another one.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <string>

namespace fettle::chain {

struct Rates {
  double products = 0.0;  // floating point operations a second of a matmul
  double read = 0.0;      // bytes a second from disk
  bool products_measured = false;
  bool read_measured = false;

  std::string text() const;  // "1.2 TFLOP/s measured, ..."
};

// Of this machine's `device`, in `type`. `file` is read to time its disk; an
// empty path: assumed.
Rates measure_rates(
    at::Device device, at::ScalarType type, const std::filesystem::path& file);

// Of a card that is not here.
Rates assumed_rates(const std::filesystem::path& file);

}  // namespace fettle::chain
