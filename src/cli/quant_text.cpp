// SPDX-License-Identifier: Apache-2.0
#include "cli/quant_text.h"

#include <fmt/format.h>

#include "cli/table.h"
#include "core/bytes.h"

namespace fettle::cli {

std::string quant_table(const quant::QuantResult& result) {
  std::map<std::string, quant::RoleRecord> roles;
  for (const quant::LayerRecord& layer : result.layers) {
    for (const auto& [name, role] : layer.roles) {
      quant::RoleRecord& sum = roles[name];
      sum.weights += role.weights;
      sum.bytes += role.bytes;
      sum.error += role.error;
      sum.energy += role.energy;
      sum.matrices += role.matrices;
      sum.scarce += role.scarce;
      sum.unseen += role.unseen;
    }
  }
  Table table(
      {"",
       "weights",
       "size",
       "bits a weight",
       "error of output",
       "few tokens",
       "none"});
  for (const auto& [name, role] : roles) {
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
