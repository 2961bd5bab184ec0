# SPDX-License-Identifier: Apache-2.0
# Finds libtorch in the Python environment and imports its CPU libraries by
# themselves. find_package(Torch) would demand the CUDA toolkit that the wheel
# was built with, on machines that have neither a card nor a need for one.
#
# Targets: torch::cpu, and torch::cuda where the wheel carries the device half.

set(FETTLE_PYTHON "" CACHE FILEPATH "Python whose torch package is used")
if(NOT FETTLE_PYTHON)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  set(FETTLE_PYTHON "${Python3_EXECUTABLE}" CACHE FILEPATH "" FORCE)
endif()
execute_process(
  COMMAND "${FETTLE_PYTHON}" -c
    "import importlib.util as u, os; print(os.path.dirname(u.find_spec('torch').origin))"
  OUTPUT_VARIABLE torch_root OUTPUT_STRIP_TRAILING_WHITESPACE
  RESULT_VARIABLE torch_missing ERROR_QUIET)
if(torch_missing)
  message(FATAL_ERROR
    "${FETTLE_PYTHON} has no torch: run tools/setup, or pass "
    "-DFETTLE_PYTHON=/path/to/python")
endif()

# The wheel carries the headers of a newer fmt, but not its library: the
# system's headers, which have one, must be found first.
find_path(fmt_include fmt/format.h REQUIRED NO_CMAKE_PATH)
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/fmt_first")
file(CREATE_LINK "${fmt_include}/fmt" "${CMAKE_BINARY_DIR}/fmt_first/fmt"
  SYMBOLIC)

add_library(torch::cpu INTERFACE IMPORTED)
target_include_directories(torch::cpu SYSTEM INTERFACE
  "${CMAKE_BINARY_DIR}/fmt_first" "${torch_root}/include" "${torch_root}/include/torch/csrc/api/include")
target_link_libraries(torch::cpu INTERFACE
  "${torch_root}/lib/libtorch_cpu.so" "${torch_root}/lib/libc10.so")
# libtorch_cpu of a CUDA wheel needs libcudart and libcupti, which the wheel
# finds beside itself through its own run path; the linker need not.
target_link_options(torch::cpu INTERFACE "LINKER:--allow-shlib-undefined")
# Of programs in the build folder; cmake/Install.cmake says where installed ones
# look.
set(CMAKE_BUILD_RPATH "${torch_root}/lib")

if(EXISTS "${torch_root}/lib/libtorch_cuda.so")
  add_library(torch::cuda INTERFACE IMPORTED)
  target_link_libraries(torch::cuda INTERFACE
    torch::cpu "${torch_root}/lib/libtorch_cuda.so"
    "${torch_root}/lib/libc10_cuda.so")
endif()
