// SPDX-License-Identifier: Apache-2.0
// In this program the CPU's code of an op is the GPU's, emulated: linked before
// the library's own, it takes its place, and tests of tensors on the CPU run
// the kernels.
#include <cstring>
#include <stdexcept>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/mixers.h"
#include "kernels/cpu/packed.h"
#include "kernels/gptq_args.h"
#include "kernels/gpu/gpu.h"

namespace fettle::kernels {
namespace {

template <class Args>
void on_gpu(const char* (*launcher)(const Args&, void*), const Args& args) {
  const char* refusal = launcher(args, nullptr);
  if (refusal != nullptr) throw std::logic_error(refusal);
}

// The codes of a matrix where whole words of 4 bytes lie, as on a card, whose
// memory is given out in larger pieces: kernels read the words that hold them.
class OnCard {
 public:
  explicit OnCard(PackedArgs& matrix) {
    const auto address = reinterpret_cast<std::uintptr_t>(matrix.codes);
    const std::size_t skipped = address % 8;
    const auto bytes = static_cast<std::size_t>(matrix.codes_bytes);
    words_.resize((skipped + bytes + 3) / 4 + 1);
    auto* codes = reinterpret_cast<std::uint8_t*>(words_.data()) + skipped;
    if (bytes > 0) std::memcpy(codes, matrix.codes, bytes);
    matrix.codes = codes;
  }

 private:
  std::vector<std::uint32_t> words_;
};

}  // namespace

void cpu::rms_norm(const RmsNormArgs& a) { on_gpu(gpu::rms_norm, a); }
void cpu::rms_norm_backward(const RmsNormBackwardArgs& a) {
  on_gpu(gpu::rms_norm_backward, a);
}
void cpu::swiglu(const SwigluArgs& a) { on_gpu(gpu::swiglu, a); }
void cpu::swiglu_backward(const SwigluBackwardArgs& a) {
  on_gpu(gpu::swiglu_backward, a);
}
void cpu::gather_rows(const GatherRowsArgs& a) { on_gpu(gpu::gather_rows, a); }
void cpu::combine(const CombineArgs& a) { on_gpu(gpu::combine, a); }
void cpu::combine_backward(const CombineBackwardArgs& a) {
  on_gpu(gpu::combine_backward, a);
}
void cpu::cross_entropy(const CrossEntropyArgs& a) {
  on_gpu(gpu::cross_entropy, a);
}
void cpu::rope(const RopeArgs& a) { on_gpu(gpu::rope, a); }
void cpu::causal_conv1d(const ConvolutionArgs& a) {
  on_gpu(gpu::causal_conv1d, a);
}
void cpu::causal_conv1d_backward(const ConvolutionBackwardArgs& a) {
  on_gpu(gpu::causal_conv1d_backward, a);
}
void cpu::fit_grid(const FitGridArgs& a) { on_gpu(gpu::fit_grid, a); }
void cpu::gptq_block(const GptqBlockArgs& a) { on_gpu(gpu::gptq_block, a); }

// A GPU shows a damaged row by NaN alone.
bool cpu::unpack_rows(const UnpackRowsArgs& args) {
  UnpackRowsArgs a = args;
  const OnCard codes(a.matrix);
  on_gpu(gpu::unpack_rows, a);
  return true;
}

bool cpu::packed_products(const PackedProductsArgs& args) {
  std::vector<PackedProductArgs> products(
      args.products, args.products + args.count);
  std::vector<OnCard> codes;
  for (PackedProductArgs& p : products) codes.emplace_back(p.matrix);
  PackedProductsArgs a = args;
  a.products = products.data();
  on_gpu(gpu::packed_products, a);
  return true;
}
bool cpu::share_of_packed_products(
    const PackedProductsArgs& args, const Share& share) {
  return share.part != 0 || cpu::packed_products(args);
}

}  // namespace fettle::kernels
