// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)

#include <dlfcn.h>

#include <catch2/catch.hpp>

extern "C" int mkl_serv_intel_cpu_true();

namespace fettle::kernels {
namespace {

void in_this_program() {}

TEST_CASE("libtorch asks our function whether it runs on an Intel processor") {
  // What the loader answers libtorch: a function of this program, not of
  // libtorch itself.
  Dl_info found, program;
  REQUIRE(dladdr(dlsym(RTLD_DEFAULT, "mkl_serv_intel_cpu_true"), &found) != 0);
  REQUIRE(dladdr(reinterpret_cast<void*>(&in_this_program), &program) != 0);
  CHECK(found.dli_fbase == program.dli_fbase);
  if (__builtin_cpu_supports("avx512f") != 0) {
    CHECK(mkl_serv_intel_cpu_true() == 1);
  }
}

}  // namespace
}  // namespace fettle::kernels

#endif
