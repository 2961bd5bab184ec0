// SPDX-License-Identifier: Apache-2.0
// Names of the modules that are not stored as most experts are, as regular
// expressions, by which loaders are told.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "export/codes/code_plan.h"

namespace fettle::exporter {

struct ModulePattern {
  std::string regex;             // of the whole name
  std::optional<CodeForm> form;  // none: stored plain
};

// The exceptions among modules whose role is `wanted`, `named` as in the
// checkpoint. A role that is alike in all layers is told in one.
std::vector<ModulePattern> exceptions(
    const CodePlan& plan,
    const std::function<bool(model::Role)>& wanted,
    const std::function<std::string(const std::string&)>& named);

// A pattern of all modules of a part, such as "model.visual.", which loaders
// may know with "model." before it or without.
std::string part_pattern(std::string_view part);

// `text` with the first `from` in it made `to`.
std::string replaced(
    std::string text, std::string_view from, std::string_view to);

}  // namespace fettle::exporter
