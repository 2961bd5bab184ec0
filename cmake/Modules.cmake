# SPDX-License-Identifier: Apache-2.0
# One library per folder. A folder's sources are all of its .cpp files.

add_library(fettle_flags INTERFACE)
target_compile_features(fettle_flags INTERFACE cxx_std_20)
target_compile_options(fettle_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # gcc bug 105651: string concatenation draws a false -Wrestrict at -O2.
  target_compile_options(fettle_flags INTERFACE -Wno-restrict)
endif()
if(FETTLE_WERROR)
  target_compile_options(fettle_flags INTERFACE -Werror)
endif()
target_include_directories(fettle_flags INTERFACE
  "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}")
if(FETTLE_SANITIZE)
  # Under instrumentation gcc takes parts of libstdc++ for uninitialized.
  target_compile_options(fettle_flags INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=all
    -fno-omit-frame-pointer -Wno-maybe-uninitialized)
  target_link_options(fettle_flags INTERFACE -fsanitize=address,undefined)
endif()

# fettle_module(NAME DIR [LINKS...]): library fettle_NAME from DIR's sources.
function(fettle_module name dir)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${dir}/*.cpp")
  add_library(fettle_${name} STATIC ${sources})
  set_target_properties(fettle_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(fettle_${name} PUBLIC fettle_flags ${ARGN})
endfunction()

# The ATen headers take half a minute to read: every target that uses them
# shares one precompiled header.
add_library(fettle_aten STATIC "${CMAKE_CURRENT_LIST_DIR}/aten_pch.cpp")
set_target_properties(fettle_aten PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(fettle_aten PUBLIC fettle_flags torch::cpu)
target_precompile_headers(fettle_aten PRIVATE "${CMAKE_CURRENT_LIST_DIR}/aten_pch.h")

function(fettle_use_aten)
  foreach(target IN LISTS ARGN)
    target_link_libraries(${target} PUBLIC fettle_aten)
    target_precompile_headers(${target} REUSE_FROM fettle_aten)
    # gcc takes a precompiled header only under the -fPIC it was made with, for
    # programs too.
    target_compile_options(${target} PRIVATE -fPIC)
  endforeach()
endfunction()
