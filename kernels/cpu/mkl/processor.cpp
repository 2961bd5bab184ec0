// SPDX-License-Identifier: Apache-2.0
// libtorch's matrix products are MKL's, which asks this function, found by its
// name at load time, whether the processor is Intel's, and gives others AVX2
// code at best. A processor with AVX-512 from elsewhere runs the AVX-512 code
// at more than twice the rate (docs/benchmarks.md), with the same guarantees.
// PyTorch's maintainers advise the same by LD_PRELOAD (pytorch/builder#1245).
// The program shows the name to libtorch because it is linked before it; where
// libtorch has no MKL nobody asks.
#if defined(__x86_64__)

extern "C" int mkl_serv_intel_cpu_true();

extern "C" int mkl_serv_intel_cpu_true() {
  return __builtin_cpu_is("intel") != 0 ||
         __builtin_cpu_supports("avx512f") != 0;
}

#endif
