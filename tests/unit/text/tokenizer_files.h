// SPDX-License-Identifier: Apache-2.0
// Small tokenizer.json files, whose every token can be told by hand.
#pragma once

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>

#include "../temporary_folder.h"
#include "core/error.h"
#include "core/json.h"
#include "text/tokenizer.h"

namespace fettle::text {

// Letters a to e and some merges of them; by rank: ab, abc, de, cd.
inline Json letters_file() {
  return Json::parse(R"({
    "added_tokens": [
      {"id": 10, "content": "<s>", "special": true},
      {"id": 11, "content": "<tool>", "special": false, "normalized": false}
    ],
    "normalizer": null, "pre_tokenizer": null,
    "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {
      "type": "BPE",
      "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, " ": 5,
                "ab": 6, "abc": 7, "de": 8, "cd": 9},
      "merges": [["a", "b"], ["ab", "c"], ["d", "e"], ["c", "d"]]
    }})");
}

inline Tokenizer make_tokenizer(const Json& file) {
  return Tokenizer::parse(file.dump(), "t.json");
}

// The error of a file that must not load.
inline std::string load_error(const Json& file) {
  try {
    make_tokenizer(file);
  } catch (const UserError& error) {
    return error.what();
  }
  return "loaded";
}

using fettle::TemporaryFolder;

}  // namespace fettle::text
