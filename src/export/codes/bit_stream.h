// SPDX-License-Identifier: Apache-2.0
// Codes as a dense stream of bits in 32-bit words, which compressed-tensors and
// GPTQ share: code i has bits [i b, (i + 1) b) of its row, the lowest first,
// without gaps, so that codes of 3 bits cross words.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace fettle::exporter {

// Words that `count` codes take.
std::int64_t stream_words(std::int64_t count, std::int64_t bits);

// uint8 [n, count] to int32 [n, stream_words].
at::Tensor pack_stream(const at::Tensor& codes, std::int64_t bits);

// The codes again, uint8 [n, count], each shifted out of its words: for checks
// of what was written.
at::Tensor unpack_stream(
    const at::Tensor& words, std::int64_t bits, std::int64_t count);

}  // namespace fettle::exporter
