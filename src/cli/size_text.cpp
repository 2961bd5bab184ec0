// SPDX-License-Identifier: Apache-2.0
#include "cli/size_text.h"

#include <fmt/format.h>

#include "cli/table.h"
#include "core/bytes.h"

namespace fettle::cli {

std::string size_table(
    const artifact::ModelSize& before, const artifact::ModelSize& after) {
  Table table({"", "before", "after"});
  const auto row = [&](const char* name, auto cell) {
    table.add({name, cell(before), cell(after)});
  };
  using Size = const artifact::ModelSize&;
  row("parameters", [](Size s) { return fmt::format("{}", s.parameters); });
  row("active on a token",
      [](Size s) { return fmt::format("{}", s.active_parameters); });
  row("size", [](Size s) { return format_bytes(s.bytes); });
  row("experts", [](Size s) { return fmt::format("{}", s.experts); });
  row("neurons in experts",
      [](Size s) { return fmt::format("{}", s.neurons); });
  row("expert width, min..median..max", [](Size s) {
    return fmt::format(
        "{}..{:g}..{}", s.min_width, s.median_width, s.max_width);
  });
  row("experts of width 0",
      [](Size s) { return fmt::format("{}", s.zero_width); });
  return table.text();
}

}  // namespace fettle::cli
