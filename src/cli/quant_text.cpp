// SPDX-License-Identifier: Apache-2.0
#include "cli/quant_text.h"

#include <fmt/format.h>

#include "cli/table.h"
#include "core/bytes.h"
#include "quant/report.h"

namespace fettle::cli {

std::string quant_table(const quant::QuantResult& result) {
  Table table(
      {"",
       "weights",
       "size",
       "bits a weight",
       "error of output",
       "few tokens",
       "none"});
  for (const auto& [name, role] : quant::totals(result)) {
    table.add(
        {name,
         fmt::format("{}", role.weights),
         format_bytes(role.bytes),
         fmt::format(
             "{:.3f}",
             8.0 * static_cast<double>(role.bytes) /
                 static_cast<double>(std::max<std::int64_t>(role.weights, 1))),
         role.energy > 0
             ? fmt::format("{:.3g} %", 100 * role.error / role.energy)
             : "-",
         fmt::format("{}", role.scarce),
         fmt::format("{}", role.unseen)});
  }
  return table.text();
}

}  // namespace fettle::cli
