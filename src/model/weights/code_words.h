// SPDX-License-Identifier: Apache-2.0
// Codes of a few bits out of the 32-bit words in which other tools store them.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace fettle::model {

// Words that `count` codes take as a dense stream.
std::int64_t words_for(std::int64_t count, std::int64_t bits);

// A dense stream: code i has bits [i b, (i + 1) b) of its row, the lowest
// first, so that codes of 3 bits cross words. int32 [n, words] to uint8
// [n, count].
at::Tensor dense_codes(
    const at::Tensor& words, std::int64_t count, std::int64_t bits);

// AWQ's words: 8 codes of 4 bits, of which the nibbles from the lowest up hold
// the columns 0, 2, 4, 6, 1, 3, 5, 7. int32 [n, words] to uint8 [n, 8 words].
at::Tensor awq_codes(const at::Tensor& words);

}  // namespace fettle::model
