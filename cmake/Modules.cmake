# SPDX-License-Identifier: Apache-2.0
# One library per folder. A folder's sources are all of its .cpp files.

add_library(fettle_flags INTERFACE)
target_compile_features(fettle_flags INTERFACE cxx_std_20)
target_compile_options(fettle_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # gcc bug 105651: string concatenation draws false warnings at -O2.
  target_compile_options(fettle_flags INTERFACE
    -Wno-restrict -Wno-stringop-overflow -Wno-array-bounds)
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

# Eight sources to a compilation: headers and templates are most of its time, so
# that eight take as long as two. Sources of one folder that give different things
# the same name in anonymous namespaces are compiled alone.
function(fettle_compile_together target)
  set_target_properties(${target} PROPERTIES
    UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
endfunction()

function(fettle_compile_alone)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# fettle_module(NAME DIR [LINKS...]): library fettle_NAME from DIR's sources.
function(fettle_module name dir)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/${dir}/*.cpp")
  add_library(fettle_${name} STATIC ${sources})
  set_target_properties(fettle_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(fettle_${name} PUBLIC fettle_flags ${ARGN})
  fettle_compile_together(fettle_${name})
endfunction()

# fettle_share_pch(OWNER TARGETS...): the targets use OWNER's precompiled header.
# gcc takes one only under the flags it was made with, -fPIC for programs too.
function(fettle_share_pch owner)
  foreach(target IN LISTS ARGN)
    target_precompile_headers(${target} REUSE_FROM ${owner})
    target_compile_options(${target} PRIVATE -fPIC)
  endforeach()
endfunction()

# The ATen headers take half a minute to read: every target that uses them
# shares one precompiled header.
add_library(fettle_aten STATIC "${CMAKE_CURRENT_LIST_DIR}/pch_owner.cpp")
set_target_properties(fettle_aten PROPERTIES POSITION_INDEPENDENT_CODE ON)
# fettle_core brings the definitions that fmt is compiled with.
target_link_libraries(fettle_aten PUBLIC fettle_core torch::cpu)
target_precompile_headers(fettle_aten PRIVATE "${CMAKE_CURRENT_LIST_DIR}/aten_pch.h")

function(fettle_use_aten)
  fettle_share_pch(fettle_aten ${ARGN})
  foreach(target IN LISTS ARGN)
    target_link_libraries(${target} PUBLIC fettle_aten)
  endforeach()
endfunction()
