// SPDX-License-Identifier: Apache-2.0
#include "cli/command_text.h"

#include <catch2/catch.hpp>
#include <vector>

TEST_CASE("A command is written so that a shell reads the same words") {
  const std::vector<std::string> words{
      "eval", "my model", "--data=a.jsonl:2", "it's", "", "$HOME", "Ж"};
  CHECK(
      fettle::cli::command_text(words) ==
      R"(fettle eval 'my model' --data=a.jsonl:2 'it'\''s' '' '$HOME' 'Ж')");
}
