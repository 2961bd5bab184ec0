// SPDX-License-Identifier: Apache-2.0
// What the quant stage takes beside its sweep.
#pragma once

#include <cstdint>

#include "model/weights/model_reader.h"
#include "quant/quantize.h"
#include "sweep/plan.h"

namespace fettle::quant {

// Most bytes of moments that are held at once: those of one expert in any case.
std::int64_t most_moment_bytes(
    const model::ModelReader& reader, const QuantOptions& options);

// The memory of the stage where data calibrates it, with experts apart or in
// whole layers. Where `options` don't tell the schemes yet, by the widest.
sweep::StageMemory quant_memory(
    const model::ModelReader& reader,
    const QuantOptions& options,
    bool experts_apart);

// The same without data, when nothing else is in memory.
std::int64_t quant_bytes(
    const model::ModelReader& reader, const QuantOptions& options);

}  // namespace fettle::quant
