// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tune/method/method.h"

namespace fettle::tune {

extern const Method kLoraMethod;

// Bytes of the sums that take the layers' places where the graphs of all
// layers are kept: Workload::extra_graph_bytes. 0 without lora.
std::int64_t lora_graph_bytes(
    const TuneOptions& options, const model::ModelConfig& config);

}  // namespace fettle::tune
