// SPDX-License-Identifier: Apache-2.0
#include "text/row_keys.h"

namespace fettle::text {
namespace {

// Whether a value asks for something: null, no, 1 and nothing don't.
bool asks(const JsonObject& row, const char* key) {
  if (!row.has(key)) return false;
  const Json& value = row.at(key);
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value != 1;
  return value.is_string() ? value != "" : !value.empty();
}

}  // namespace

void check_text_row(const JsonObject& row) {
  for (const char* key :
       {"attention_mask",
        "completion_mask",
        "assistant_masks",
        "loss_mask",
        "labels",
        "loss_weights"}) {
    if (row.has(key) && row.at(key).is_array()) {
      row.refuse(key, "is not supported here: it belongs to input_ids");
    }
  }
  for (const char* key : {"weight", "sample_weight", "loss_weight"}) {
    if (asks(row, key)) {
      row.refuse(
          key, "is not supported: give the file a weight, as in data.jsonl:2");
    }
  }
  // A text is what its owner made of these; a prompt may lack them.
  if (!row.has("prompt")) return;
  for (const char* key :
       {"tools",
        "documents",
        "chat_template_kwargs",
        "system",
        "system_prompt",
        "images"}) {
    if (asks(row, key)) {
      row.refuse(
          key,
          "has no effect on a prompt that is a string: write it into the "
          "prompt, or use the form messages");
    }
  }
}

}  // namespace fettle::text
