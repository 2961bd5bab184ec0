# SPDX-License-Identifier: Apache-2.0
# The numerical ops. fettle_kernels_cpu holds the loops: raw pointers, no torch
# headers, every instruction set in one library, chosen at run time by Highway.
# fettle_kernels holds contracts, checks and dispatch.
pkg_check_modules(highway REQUIRED IMPORTED_TARGET libhwy)

file(GLOB kernel_cpu_sources CONFIGURE_DEPENDS
  "${PROJECT_SOURCE_DIR}/kernels/cpu/*.cpp")
add_library(fettle_kernels_cpu STATIC ${kernel_cpu_sources})
set_target_properties(fettle_kernels_cpu PROPERTIES
  POSITION_INDEPENDENT_CODE ON)
# Every x86-64 machine that runs libtorch well has AVX2 or AVX-512; SSE4 and
# the baseline stay as the floor. Each target left out saves its compile time.
target_compile_definitions(fettle_kernels_cpu PRIVATE
  "HWY_DISABLED_TARGETS=(HWY_SSSE3|HWY_AVX3_DL)")
# The OpenMP runtime must be the one that libtorch brings, or
# at::set_num_threads would not hold for these loops.
file(GLOB torch_openmp "${torch_root}/lib/libgomp*.so*")
if(NOT torch_openmp)
  set(torch_openmp OpenMP::OpenMP_CXX)
endif()
separate_arguments(openmp_flags NATIVE_COMMAND "${OpenMP_CXX_FLAGS}")
target_compile_options(fettle_kernels_cpu PRIVATE ${openmp_flags})
target_link_libraries(fettle_kernels_cpu
  PUBLIC fettle_flags PRIVATE PkgConfig::highway ${torch_openmp})
# As an object of its own it stands before libtorch in every program, and so
# answers in the place of libtorch's own function.
add_library(fettle_mkl OBJECT
  "${PROJECT_SOURCE_DIR}/kernels/cpu/mkl/processor.cpp")
set_target_properties(fettle_mkl PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(fettle_mkl PRIVATE fettle_flags)
target_link_libraries(fettle_kernels_cpu INTERFACE $<TARGET_OBJECTS:fettle_mkl>)

file(GLOB kernel_sources CONFIGURE_DEPENDS
  "${PROJECT_SOURCE_DIR}/kernels/*.cpp"
  "${PROJECT_SOURCE_DIR}/kernels/no_gpu/*.cpp")
add_library(fettle_kernels STATIC ${kernel_sources})
set_target_properties(fettle_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(fettle_kernels PUBLIC fettle_core fettle_kernels_cpu)
fettle_use_aten(fettle_kernels)
fettle_compile_together(fettle_kernels)

if(NOT FETTLE_GPU STREQUAL "none")
  include("${CMAKE_CURRENT_LIST_DIR}/GpuPlugin.cmake")
endif()
