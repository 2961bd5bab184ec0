// SPDX-License-Identifier: Apache-2.0
// What tensors of a GGUF file are called. Source: llama.cpp, llama-arch.cpp.
#pragma once

#include <string>

#include "export/gguf/gguf_metadata.h"
#include "model/family/weight_table.h"

namespace fettle::exporter {

// The tensor that holds the weight, alone or with a layer's other experts.
std::string gguf_name(const GgufFamily& family, const model::WeightId& id);

}  // namespace fettle::exporter
