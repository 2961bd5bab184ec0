// SPDX-License-Identifier: Apache-2.0
// A model's size before and after a stage, as a table.
#pragma once

#include <string>

#include "artifact/model_writer.h"

namespace fettle::cli {

std::string size_table(
    const artifact::ModelSize& before, const artifact::ModelSize& after);

}  // namespace fettle::cli
