// SPDX-License-Identifier: Apache-2.0
#include "cli/merge_text.h"

#include <fmt/format.h>

namespace fettle::cli {

std::string merge_table(const tune::MergeReport& report) {
  Table table({"role", "change", "kept by the written type"});
  for (const auto& [role, delta] : report.roles) {
    table.add(
        {role,
         fmt::format("{:.4g}", delta.delta),
         fmt::format("{:.2f} %", 100 * delta.kept_share())});
  }
  return table.text();
}

}  // namespace fettle::cli
