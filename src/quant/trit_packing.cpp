// SPDX-License-Identifier: Apache-2.0
#include "quant/trit_packing.h"

#include <optional>

#include "kernels/trit_code.h"

namespace fettle::quant {

using kernels::PackedKind;
using kernels::PackedMatrix;
using kernels::TritCode;

PackedMatrix pack_trits(
    const kernels::Quantized& quantized, const kernels::QuantGrid& grid) {
  PackedMatrix plain = kernels::pack(quantized, grid);
  const at::Tensor trits = quantized.codes.to(at::kChar) - 1;
  std::int64_t least = plain.codes.numel();
  std::optional<TritCode> best;
  for (const PackedKind kind :
       {PackedKind::kTernaryWords, PackedKind::kTernaryHuffman}) {
    TritCode code = kernels::encode_trits(kind, trits);
    if (kernels::stored_bytes(code) >= least) continue;
    least = kernels::stored_bytes(code);
    best = std::move(code);
  }
  if (!best) return plain;
  plain.kind = best->kind;
  plain.codes = best->codes;
  plain.row_begin = best->row_begin;
  plain.table = kernels::prepare_trit_table(best->kind, best->table);
  return plain;
}

}  // namespace fettle::quant
