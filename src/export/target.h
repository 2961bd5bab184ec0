// SPDX-License-Identifier: Apache-2.0
// Who a model is trimmed or quantized for: the format in which it will leave
// Fettle, what that asks of the model, and what the model will weigh there.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "export/export.h"
#include "export/source_forms.h"

namespace fettle::exporter {

enum class Target {
  kFettle,  // any width, any scheme
  kHf,      // transformers: hf, of packed models compressed-tensors
  kGguf,    // llama.cpp
  kVllm,    // as kHf, in widths that its quantized kernels want
};

// "fettle", "hf", "gguf", "vllm". Throws UserError naming the known ones.
Target parse_target(std::string_view name);
std::vector<std::string> target_names();

// The format by which such a model gets there.
Format format_for(Target target, bool packed);

// Experts' widths there should be multiples of this: of the least block of a
// GGUF, of a tile of vLLM's quantized experts, of two 16-byte loads of
// transformers'. 1 for Fettle.
std::int64_t width_unit(Target target);
// Other programs hold experts of one width alone.
bool wants_uniform(Target target);

// Bytes of all tensors of the model in `options.format`. Throws UserError, as
// an export would, where the format can't hold it.
std::int64_t exported_bytes(
    const SourceForms& source, const ExportOptions& options);

}  // namespace fettle::exporter
