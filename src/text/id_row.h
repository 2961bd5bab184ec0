// SPDX-License-Identifier: Apache-2.0
// Rows of a data file that hold token ids.
#pragma once

#include "core/json.h"
#include "text/sample.h"

namespace fettle::text {

// Reads "input_ids" and, if they are there,
//   labels                  else the ids; -100 masks
//   completion_mask, assistant_masks, loss_mask   0 masks, 1 doesn't
//   attention_mask          padding, 0 at either end, is cut off
//   position_ids            must ascend by one: documents are separated by
//   rows
// Throws UserError on anything else, and on packed rows.
Sample read_id_row(const JsonObject& row);

}  // namespace fettle::text
