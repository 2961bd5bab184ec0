// SPDX-License-Identifier: Apache-2.0
// The card that tests of it compute on.
#pragma once

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <iostream>
#include <optional>

#include "core/error.h"
#include "kernels/device_backend.h"

namespace fettle::model::testing {

// None where the machine has none: the test is skipped by that name.
inline std::optional<at::Device> card() {
  try {
    return kernels::open_device({.gpu = true});
  } catch (const UserError& error) {
    // The test's report takes it along, and tools/test_summary.py counts it.
    std::cout << "skipped: no GPU: " << error.what() << '\n';
    return std::nullopt;
  }
}

}  // namespace fettle::model::testing
