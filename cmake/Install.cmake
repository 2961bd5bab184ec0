# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` puts where: bin/fettle, lib/fettle for the plug-in and
# the small libraries that it was linked with, share/fettle for the helper that
# renders conversations, share/doc/fettle for README and licence.
#
# libtorch is not copied. An installed program looks for it in the Python
# environment that it was built with; with FETTLE_PORTABLE, as tools/wheel sets
# it, only beside its own package: site-packages/fettle and site-packages/torch.
include(GNUInstallDirs)
option(FETTLE_PORTABLE "Install for another machine: no path of this one" OFF)

set(libtorch_from_bin "${torch_root}/lib")
set(libtorch_from_lib "${torch_root}/lib")
if(FETTLE_PORTABLE)
  set(libtorch_from_bin "$ORIGIN/../../torch/lib")
  set(libtorch_from_lib "$ORIGIN/../../../torch/lib")
endif()
# CMake overwrites the one in place by the other, so the former must not be the
# shorter: what it adds to make room would stay.
set_target_properties(fettle PROPERTIES
  BUILD_RPATH "$ORIGIN/../lib/fettle;${torch_root}/lib"
  INSTALL_RPATH "$ORIGIN/../lib/fettle;${libtorch_from_bin}")
# The libraries of a library are looked for where the program says only if the
# program names them itself.
list(TRANSFORM httplib_STATIC_LIBRARIES PREPEND "-l" OUTPUT_VARIABLE behind_httplib)
list(JOIN behind_httplib " " behind_httplib)
target_link_libraries(fettle PRIVATE
  "-Wl,--push-state,--no-as-needed ${behind_httplib} -Wl,--pop-state")
install(TARGETS fettle RUNTIME DESTINATION bin)
# Everything else that the program needs is part of the system or of libtorch.
install(CODE "set(program \"$<TARGET_FILE:fettle>\")")
install(CODE [[
  file(GET_RUNTIME_DEPENDENCIES EXECUTABLES "${program}"
    PRE_INCLUDE_REGEXES
      "^lib(fmt|yaml-cpp|pcre2-8|utf8proc|xxhash|hwy|z|cpp-httplib|ssl|crypto|brotli[a-z]+)\\."
    PRE_EXCLUDE_REGEXES "."
    RESOLVED_DEPENDENCIES_VAR needed)
  foreach(library IN LISTS needed)
    file(INSTALL "${library}" TYPE SHARED_LIBRARY FOLLOW_SYMLINK_CHAIN
      DESTINATION "${CMAKE_INSTALL_PREFIX}/lib/fettle")
  endforeach()
]])

if(TARGET fettle_${FETTLE_GPU})
  set_target_properties(fettle_${FETTLE_GPU} PROPERTIES
    INSTALL_RPATH "${libtorch_from_lib}")
  install(TARGETS fettle_${FETTLE_GPU} LIBRARY DESTINATION lib/fettle)
endif()
install(FILES tools/render_chat.py tools/chat_rows.py tools/chat_turns.py
  tools/chat_answers.py DESTINATION share/fettle)
install(FILES README.md LICENSE DESTINATION share/doc/fettle)
