# SPDX-License-Identifier: Apache-2.0
# Text files as string constants. Run as a script, it writes OUTPUT, a C++
# source that defines `const std::string_view fettle::NAME` with INPUT's bytes;
# included, it offers fettle_embed_text.

if(CMAKE_SCRIPT_MODE_FILE)
  # As hexadecimal, since CMake takes [ ; \ in text for its own.
  file(READ "${INPUT}" hex HEX)
  string(REGEX REPLACE "(..)" "'\\\\x\\1'," bytes "${hex}")
  file(WRITE "${OUTPUT}"
    "#include <string_view>\n"
    "namespace fettle {\n"
    "extern const std::string_view ${NAME};\n"
    "namespace {\n"
    "constexpr char kBytes[] = {${bytes}};\n"
    "}\n"
    "const std::string_view ${NAME}(kBytes, sizeof kBytes);\n"
    "}\n")
  return()
endif()

set(FETTLE_EMBED_SCRIPT "${CMAKE_CURRENT_LIST_FILE}")

# fettle_embed_text(TARGET NAME FILE): adds fettle::NAME, FILE's text.
function(fettle_embed_text target name file)
  set(output "${CMAKE_BINARY_DIR}/embedded/${name}.cpp")
  add_custom_command(
    OUTPUT "${output}"
    COMMAND ${CMAKE_COMMAND} -DINPUT=${file} -DOUTPUT=${output} -DNAME=${name}
      -P "${FETTLE_EMBED_SCRIPT}"
    DEPENDS "${file}" "${FETTLE_EMBED_SCRIPT}"
    VERBATIM)
  target_sources(${target} PRIVATE "${output}")
  set_source_files_properties("${output}" PROPERTIES
    SKIP_PRECOMPILE_HEADERS ON SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()
