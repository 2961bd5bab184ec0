// SPDX-License-Identifier: Apache-2.0
#include "cli/plan_text.h"

#include <fmt/format.h>

#include "cli/table.h"
#include "core/bytes.h"

namespace fettle::cli {

namespace {

std::string cell(std::int64_t bytes) {
  return bytes == 0 ? "" : format_bytes(bytes);
}

}  // namespace

std::string run_plan_table(const tune::RunPlan& plan) {
  Table table({"plan", "RAM", "device", "disk"});
  const auto add = [&](const tune::PlanRow& row) {
    table.add({row.what, cell(row.ram), cell(row.device), cell(row.disk)});
  };
  for (const tune::PlanRow& row : plan.rows) {
    if (row.ram + row.device + row.disk > 0) add(row);
  }
  add(plan.total());
  std::string text = table.text();
  if (!plan.moves()) return text + "no step waits for the disk";
  text += fmt::format(
      "a step reads {} from disk and writes {}",
      format_bytes(plan.read_bytes),
      format_bytes(plan.written_bytes));
  if (plan.disk_speed > 0.0) {
    text += fmt::format(
        ": {:.2g} s at the {}/s that were measured, if nothing is cached",
        plan.io_seconds(),
        format_bytes(static_cast<std::int64_t>(plan.disk_speed)));
  }
  return text;
}

}  // namespace fettle::cli
