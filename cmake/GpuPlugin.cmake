# SPDX-License-Identifier: Apache-2.0
# The GPU plug-in: kernels/gpu compiled by nvcc or hipcc, and the half of
# libtorch that drives such cards. Custom commands instead of CMake's CUDA and
# HIP languages: those probe for cards and know only newer compilers.

# Code for 8.0 runs on 8.6 and 8.9 too, and these kernels wait for memory.
set(every_cuda_arch "75-real;80-real;90-real;120")
set(FETTLE_CUDA_ARCHS "all" CACHE STRING
  "Compute capabilities to compile for, as CMAKE_CUDA_ARCHITECTURES spells them: \
90-real is code, 90-virtual is PTX, which the driver compiles, 90 is both; or all")
set(FETTLE_HIP_ARCHS "" CACHE STRING
  "AMD targets to compile for; empty: those that libtorch's wheels know too")

if(NOT FETTLE_GPU MATCHES "^(cuda|hip)$")
  message(FATAL_ERROR "FETTLE_GPU is ${FETTLE_GPU}: use none, cuda or hip")
endif()
set(plugin fettle_${FETTLE_GPU})
file(GLOB gpu_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/kernels/gpu/*.cu")
set(gpu_flags -std=c++20 -O3 "-I${PROJECT_SOURCE_DIR}")

add_library(${plugin} SHARED "${PROJECT_SOURCE_DIR}/kernels/gpu/plugin.cpp")
set_target_properties(${plugin} PROPERTIES
  LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")
target_link_libraries(${plugin} PRIVATE fettle_flags)

if(FETTLE_GPU STREQUAL "cuda")
  find_program(NVCC nvcc HINTS "$ENV{CUDA_HOME}/bin" /usr/local/cuda/bin REQUIRED)
  set(gpu_compiler "${NVCC}")
  execute_process(COMMAND "${NVCC}" --version OUTPUT_VARIABLE nvcc_version)
  string(REGEX MATCH "release ([0-9]+)" _ "${nvcc_version}")
  set(cuda_major ${CMAKE_MATCH_1})
  list(APPEND gpu_flags -Xcompiler -fPIC,-Wall,-Wextra)
  if(FETTLE_WERROR)
    list(APPEND gpu_flags -Werror all-warnings)
  endif()
  set(cuda_archs ${FETTLE_CUDA_ARCHS})
  if(cuda_archs STREQUAL "all")
    set(cuda_archs ${every_cuda_arch})
  endif()
  foreach(arch IN LISTS cuda_archs)
    if(NOT arch MATCHES "^([0-9]+[af]?)(-real|-virtual)?$")
      message(FATAL_ERROR "FETTLE_CUDA_ARCHS has '${arch}': expected a compute "
        "capability such as 90, 90-real or 90-virtual, or all")
    endif()
    set(number ${CMAKE_MATCH_1})
    if(NOT CMAKE_MATCH_2 STREQUAL "-virtual")
      list(APPEND gpu_flags "-gencode=arch=compute_${number},code=sm_${number}")
    endif()
    if(NOT CMAKE_MATCH_2 STREQUAL "-real")
      list(APPEND gpu_flags
        "-gencode=arch=compute_${number},code=compute_${number}")
    endif()
  endforeach()
  set(backend CUDA)
  set(torch_device torch::cuda)
  # libtorch and the kernels must share one CUDA runtime.
  file(GLOB gpu_runtime
    "${torch_root}/../nvidia/*/lib/libcudart.so.${cuda_major}")
  if(TARGET torch::cuda AND NOT gpu_runtime)
    message(FATAL_ERROR
      "${NVCC} is of CUDA ${cuda_major}, and libtorch brings no runtime of "
      "that version: install its CUDA toolkit, or configure with "
      "-DFETTLE_GPU=none")
  elseif(NOT gpu_runtime)
    find_library(gpu_runtime cudart REQUIRED
      HINTS "$ENV{CUDA_HOME}/lib64" /usr/local/cuda/lib64)
  endif()
else()
  find_program(HIPCC hipcc HINTS /opt/rocm/bin REQUIRED)
  find_library(gpu_runtime amdhip64 HINTS /opt/rocm/lib REQUIRED)
  set(gpu_compiler "${HIPCC}")
  set(hip_archs ${FETTLE_HIP_ARCHS})
  if(NOT hip_archs)
    execute_process(COMMAND "${HIPCC}" --version OUTPUT_VARIABLE hip_version
      ERROR_QUIET)
    string(REGEX MATCH "HIP version: ([0-9]+\\.[0-9]+)" _ "${hip_version}")
    set(hip_archs gfx908 gfx90a gfx1030)
    if(CMAKE_MATCH_1 VERSION_GREATER_EQUAL 6.0)
      list(APPEND hip_archs gfx942 gfx1100 gfx1101 gfx1102)
    endif()
    if(CMAKE_MATCH_1 VERSION_GREATER_EQUAL 6.4)
      list(APPEND hip_archs gfx1200 gfx1201)
    endif()
  endif()
  list(APPEND gpu_flags -x hip -fPIC -Wall -Wextra)
  if(FETTLE_WERROR)
    list(APPEND gpu_flags -Werror)
  endif()
  foreach(arch IN LISTS hip_archs)
    list(APPEND gpu_flags "--offload-arch=${arch}")
  endforeach()
  set(backend HIP)
  set(torch_device torch::hip)
  if(EXISTS "${torch_root}/lib/libtorch_hip.so")
    add_library(torch::hip INTERFACE IMPORTED)
    target_link_libraries(torch::hip INTERFACE torch::cpu
      "${torch_root}/lib/libtorch_hip.so" "${torch_root}/lib/libc10_hip.so")
  endif()
endif()

foreach(source IN LISTS gpu_sources)
  get_filename_component(name "${source}" NAME)
  set(object "${CMAKE_BINARY_DIR}/gpu/${name}.o")
  add_custom_command(
    OUTPUT "${object}" DEPENDS "${source}" DEPFILE "${object}.d"
    COMMAND ${CMAKE_COMMAND} -E make_directory "${CMAKE_BINARY_DIR}/gpu"
    COMMAND "${gpu_compiler}" ${gpu_flags} -MD -MF "${object}.d"
      -c "${source}" -o "${object}"
    COMMENT "Building ${backend} object ${name}.o" VERBATIM)
  target_sources(${plugin} PRIVATE "${object}")
endforeach()

target_compile_definitions(${plugin} PRIVATE
  "FETTLE_PLUGIN_BACKEND=\"${backend}\"")
target_link_libraries(${plugin} PRIVATE ${gpu_runtime})
if(TARGET ${torch_device})
  target_compile_definitions(${plugin} PRIVATE FETTLE_PLUGIN_REFUSAL=nullptr)
  # Nothing here calls libtorch: loading it is what registers its devices.
  target_link_options(${plugin} BEFORE PRIVATE LINKER:--no-as-needed)
  target_link_libraries(${plugin} PRIVATE ${torch_device})
else()
  target_compile_definitions(${plugin} PRIVATE
    "FETTLE_PLUGIN_REFUSAL=\"built with a libtorch that has no ${backend}: \
install the one made for ${backend} and build again\"")
endif()
