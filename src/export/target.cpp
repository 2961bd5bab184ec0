// SPDX-License-Identifier: Apache-2.0
#include "export/target.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <utility>

#include "core/error.h"
#include "export/codes/code_export.h"
#include "export/gguf/gguf_tensors.h"

namespace fettle::exporter {
namespace {

struct TargetInfo {
  Target target;
  std::string_view name;
  std::int64_t width_unit;
};

constexpr std::array<TargetInfo, 4> kTargets{{
    {Target::kFettle, "fettle", 1},
    {Target::kHf, "hf", 16},
    {Target::kGguf, "gguf", 32},
    {Target::kVllm, "vllm", 64},
}};

std::int64_t gguf_bytes(
    const SourceForms& source, const ExportOptions& options) {
  const GgufPlan plan = plan_gguf(source, options);
  std::int64_t bytes = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    bytes += static_cast<std::int64_t>(declared(plan.config, tensor).bytes);
  }
  return bytes;
}

}  // namespace

Target parse_target(std::string_view name) {
  for (const TargetInfo& info : kTargets) {
    if (info.name == name) return info.target;
  }
  throw UserError(
      "export",
      name,
      fmt::format(
          "no such target; the known are {}", fmt::join(target_names(), ", ")));
}

std::vector<std::string> target_names() {
  std::vector<std::string> names;
  for (const TargetInfo& info : kTargets) names.emplace_back(info.name);
  return names;
}

Format format_for(Target target, bool packed) {
  if (target == Target::kFettle) return Format::kRagged;
  if (target == Target::kGguf) return Format::kGguf;
  return packed ? Format::kCompressedTensors : Format::kHf;
}

std::int64_t width_unit(Target target) {
  for (const TargetInfo& info : kTargets) {
    if (info.target == target) return info.width_unit;
  }
  throw InternalError("a target without a width");
}

bool wants_uniform(Target target) { return target != Target::kFettle; }

std::int64_t exported_bytes(
    const SourceForms& source, const ExportOptions& options) {
  if (options.format == Format::kGguf) return gguf_bytes(source, options);
  if (options.format > Format::kRagged) return code_bytes(source, options);
  const model::ModelConfig config = exported_config(source.config, options);
  const bool ragged = options.format == Format::kRagged && !options.dtype;
  return artifact::model_size(
             config,
             [&](const model::WeightId& id) -> model::WeightForm {
               const model::PackedHeader* const header = source.packed(id);
               if (ragged && header != nullptr) {
                 return {at::kByte, header->bytes()};
               }
               return {exported_dtype(source, config, options, id)};
             },
             source.carried_bytes)
      .bytes;
}

}  // namespace fettle::exporter
