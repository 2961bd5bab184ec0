// SPDX-License-Identifier: Apache-2.0
// A tokenizer of ten letters.
#pragma once

#include "text/tokenizer.h"

namespace fettle::testing {

inline text::Tokenizer letters() {
  return text::Tokenizer::parse(
      R"({"added_tokens": [], "normalizer": null, "pre_tokenizer": null,
          "post_processor": null, "decoder": {"type": "Fuse"},
          "model": {"type": "BPE", "merges": [],
                    "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5,
                              "g": 6, "h": 7, "i": 8, "j": 9}}})",
      "t.json");
}

}  // namespace fettle::testing
