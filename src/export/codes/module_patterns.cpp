// SPDX-License-Identifier: Apache-2.0
#include "export/codes/module_patterns.h"

#include <algorithm>
#include <map>

#include "export/codes/code_layout.h"

namespace fettle::exporter {
namespace {

// Numbers that no name has otherwise stand for all layers, and all experts.
constexpr std::int64_t kEveryLayer = 777'777;
constexpr std::int64_t kEveryExpert = 888'888;

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '.') result += '\\';
    result += c;
  }
  return result;
}

// Within a larger model, loaders begin the names otherwise than files do.
std::string escaped(std::string_view name, const model::TensorNames& names) {
  const bool nested = names != model::TensorNames{};
  if (!nested || !name.starts_with(names.body)) return escaped(name);
  return ".*" + escaped(name.substr(names.body.size()));
}

}  // namespace

std::string part_pattern(std::string_view part) {
  constexpr std::string_view kModel = "model.";
  if (part.starts_with(kModel)) part.remove_prefix(kModel.size());
  return "^(model\\.)?" + escaped(part) + ".*";
}

std::string replaced(
    std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  if (at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}

std::vector<ModulePattern> exceptions(
    const CodePlan& plan,
    const std::function<bool(model::Role)>& wanted,
    const std::function<std::string(const std::string&)>& named) {
  std::map<model::Role, std::vector<const PlannedWeight*>> roles;
  for (const PlannedWeight& weight : plan.weights) {
    if (wanted(weight.id.role)) roles[weight.id.role].push_back(&weight);
  }
  const auto pattern = [&](const model::WeightId& id) {
    std::string name = escaped(
        module_of(named(model::weight_name(plan.config, id))),
        plan.config.names);
    name = replaced(name, std::to_string(kEveryLayer), "\\d+");
    return "^" + replaced(name, std::to_string(kEveryExpert), "\\d+") + "$";
  };
  std::vector<ModulePattern> patterns;
  for (const auto& [role, weights] : roles) {
    const auto form = [](const PlannedWeight* weight) { return weight->form; };
    const auto& first = weights.front()->form;
    const bool alike =
        std::ranges::count(weights, first, form) == std::ssize(weights);
    if (alike) {
      if (first == plan.experts) continue;
      const std::int64_t expert = weights.front()->id.expert;
      patterns.push_back(
          {pattern({role, kEveryLayer, expert < 0 ? -1 : kEveryExpert}),
           first});
      continue;
    }
    for (const PlannedWeight* weight : weights) {
      if (weight->form == plan.experts) continue;
      patterns.push_back({pattern(weight->id), weight->form});
    }
  }
  return patterns;
}

}  // namespace fettle::exporter
