// SPDX-License-Identifier: Apache-2.0
#include "text/id_row.h"

#include <catch2/catch.hpp>
#include <string>

#include "core/error.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::text;
using Ids = std::vector<std::int32_t>;

namespace {

Sample read_with(const std::string& members) {
  const Json row =
      Json::parse(R"({"input_ids": [1, 2, 3, 4], )" + members + "}");
  return read_id_row(JsonObject(row, "data", "d.jsonl:7"));
}

std::string id_row_error(const std::string& members) {
  try {
    read_with(members);
  } catch (const UserError& error) {
    return error.what();
  }
  return "read";
}

}  // namespace

TEST_CASE("padding is cut off") {
  CHECK(read_with(R"("attention_mask": [1, 1, 1, 1])").ids == Ids{1, 2, 3, 4});
  const Sample right = read_with(R"("attention_mask": [1, 1, 0, 0])");
  CHECK(right.ids == Ids{1, 2});
  CHECK(right.labels == Ids{1, 2});
  const Sample left = read_with(
      R"("attention_mask": [0, 1, 1, 1], "labels": [-100, -100, 3, 4],
         "position_ids": [1, 0, 1, 2])");
  CHECK(left.ids == Ids{2, 3, 4});
  CHECK(left.labels == Ids{kMasked, 3, 4});
  CHECK(read_with(R"("attention_mask": [0, 0, 0, 0])").ids.empty());
}

TEST_CASE("masks say what counts") {
  for (const char* key : {"completion_mask", "assistant_masks", "loss_mask"}) {
    const std::string mask = "\"" + std::string(key) + "\": [0, 1, 0, 1]";
    CHECK(read_with(mask).labels == Ids{kMasked, 2, kMasked, 4});
    CHECK(read_with(mask).ids == Ids{1, 2, 3, 4});
    CHECK(
        read_with(mask + R"(, "labels": [1, -100, 3, 4])").labels ==
        Ids{kMasked, kMasked, kMasked, 4});
  }
  CHECK(
      read_with(R"("attention_mask": null, "token_type_ids": [0])")
          .ids.size() == 4);
}

TEST_CASE("rows of ids that ask for more are refused by name") {
  CHECK_THAT(
      id_row_error(R"("attention_mask": [1, 0, 1, 1])"),
      Contains("d.jsonl:7") && Contains("'attention_mask' hides tokens"));
  CHECK_THAT(
      id_row_error(R"("attention_mask": [1, 1])"),
      Contains("'attention_mask' has 2 entries, but 'input_ids' has 4"));
  CHECK_THAT(
      id_row_error(R"("loss_mask": [1, 1, 2, 1])"),
      Contains("0 and 1, found 2"));
  CHECK_THAT(
      id_row_error(R"("position_ids": [0, 1, 0, 1])"),
      Contains("'position_ids' must ascend by one"));
  CHECK_THAT(
      id_row_error(R"("seq_lengths": [2, 2])"),
      Contains("'seq_lengths' is not supported"));
}
