// SPDX-License-Identifier: Apache-2.0
#include "cli/merge_text.h"

#include <fmt/format.h>

#include "core/bytes.h"

namespace fettle::cli {

const char* merge_dtype_help() {
  return "Type of changed weights: keep is the base's own, which rounds the "
         "change; float32 holds all of it";
}

std::string merge_table(const tune::MergeReport& report) {
  Table table({"weights", "change", "rounded off"});
  const auto add = [&](const std::string& name, const tune::DeltaKept& delta) {
    table.add(
        {name,
         fmt::format("{:.4g}", delta.delta),
         fmt::format("{:.1f} %", 100 * delta.lost_share())});
  };
  for (const auto& [role, delta] : report.roles) add(role, delta);
  if (report.roles.size() > 1) add("all", report.all);
  std::string text = table.text();
  if (report.bytes < report.bytes_as_float32) {
    text += fmt::format(
        "changed weights are in the base's type, as loaders take them ({}): "
        "{}; float32 would round nothing off and take {}\n",
        report.dtype,
        format_bytes(report.bytes),
        format_bytes(report.bytes_as_float32));
  } else {
    text += fmt::format(
        "changed weights are in float32: {}\n", format_bytes(report.bytes));
  }
  return text;
}

}  // namespace fettle::cli
