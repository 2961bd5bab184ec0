// SPDX-License-Identifier: Apache-2.0
// The card that tests of it compute on.
#pragma once

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <optional>

#include "core/error.h"
#include "kernels/device_backend.h"

namespace fettle::model::testing {

// None where the machine has none: the test is skipped by that name.
inline std::optional<at::Device> card() {
  try {
    return kernels::open_device({.gpu = true});
  } catch (const UserError& error) {
    WARN("skipped: no GPU: " << error.what());
    return std::nullopt;
  }
}

}  // namespace fettle::model::testing
