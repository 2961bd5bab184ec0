// SPDX-License-Identifier: Apache-2.0
#include "cli/sampling_flags.h"

#include <catch2/catch.hpp>

#include "core/error.h"

using namespace fettle;
using namespace fettle::cli;

TEST_CASE("activations are rounded on a CPU alone") {
  using model::Activations;
  CHECK(chosen_activations("full", at::kCUDA) == Activations::kFull);
  CHECK(chosen_activations("full", at::kCPU) == Activations::kFull);
  CHECK(chosen_activations("int8", at::kCPU) == Activations::kInt8);
  CHECK_THROWS_AS(chosen_activations("int8", at::kCUDA), UserError);
}
