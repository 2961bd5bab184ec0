// SPDX-License-Identifier: Apache-2.0
// What became of a quantized model's weights, as a table.
#pragma once

#include <string>

#include "quant/quantize.h"

namespace fettle::cli {

std::string quant_table(const quant::QuantResult& result);

}  // namespace fettle::cli
