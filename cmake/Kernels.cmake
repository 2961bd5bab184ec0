# SPDX-License-Identifier: Apache-2.0
file(GLOB kernel_sources CONFIGURE_DEPENDS
  "${PROJECT_SOURCE_DIR}/kernels/*.cpp" "${PROJECT_SOURCE_DIR}/kernels/cpu/*.cpp"
  "${PROJECT_SOURCE_DIR}/kernels/no_gpu/*.cpp")
if(NOT kernel_sources)
  set(kernel_sources ${CMAKE_BINARY_DIR}/empty.cpp)
endif()
add_library(fettle_kernels STATIC ${kernel_sources})
set_target_properties(fettle_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(fettle_kernels PUBLIC fettle_core)
fettle_use_aten(fettle_kernels)
