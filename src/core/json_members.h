// SPDX-License-Identifier: Apache-2.0
// JSON objects of very many members, such as a table of tensors, read without
// holding more than one member's tree.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "core/json.h"

namespace fettle {

struct MemberSource {
  std::string_view stage;  // as for parse_json
  std::string_view subject;
  std::string_view object = {};  // the root's key for the object; empty: root
};

// Gets each member, in the text's order, and may move from both. A key that
// comes twice comes twice.
using MemberVisitor = std::function<void(std::string& key, Json& value)>;

// Calls `visit` for each member of the root object, or of the object that the
// root has under `from.object`. Returns the root without those members; where
// there is no such object, nothing is visited. Throws UserError as parse_json
// does, perhaps after some visits; NaN and infinity are not read here.
Json parse_json_members(
    std::string_view text,
    const MemberSource& from,
    const MemberVisitor& visit);

}  // namespace fettle
