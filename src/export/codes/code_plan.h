// SPDX-License-Identifier: Apache-2.0
// How the packed weights of a model are stored by formats whose codes are
// integers: which bits, groups and zero points each gets, and the widths that
// its matrices are filled up to.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "export/codes/code_matrix.h"
#include "export/export.h"
#include "export/source_forms.h"
#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/model_reader.h"

namespace fettle::exporter {

struct CodeForm {
  std::int64_t bits = 0;
  std::int64_t group = 0;  // weights of a row that share a scale; 0: all
  bool symmetric = true;   // every zero point is 2^(bits - 1)
  auto operator<=>(const CodeForm&) const = default;
};

// What a format can hold.
struct CodeRules {
  std::string name = {};  // of the format, for messages
  // All experts of a model alike, symmetric, and none left dense.
  bool experts_alike = false;
  // Group sizes; empty: any. Rows of one group always can be.
  std::vector<std::int64_t> groups = {};
  bool short_groups = false;  // a row's last group may be short
  // Rows and columns are whole words of 32 bits, MLPs filled up to them.
  bool whole_words = false;
  // What codes become that are changed: the least of these that fits.
  std::vector<std::int64_t> recoded_bits = {};
};

struct PlannedWeight {
  model::WeightId id;
  std::optional<CodeForm> form;  // none: stored plain
};

struct CodePlan {
  model::ModelConfig config;           // of the exported model
  std::vector<PlannedWeight> weights;  // all of it, in canonical order
  CodeForm experts;                    // the commonest form of an expert
};

// Throws UserError naming a weight that the format can't hold and what to do.
CodePlan plan_codes(
    const SourceForms& source,
    const ExportOptions& options,
    const CodeRules& rules);

// The codes of a packed weight, or of one without any number.
CodeMatrix source_codes(
    const model::ModelReader& reader, const model::WeightId& id);

// The codes of a weight of the plan in its form and the exported shape.
CodeMatrix planned_codes(
    const model::ModelReader& reader,
    const model::ModelConfig& config,
    const model::WeightId& id,
    const CodeForm& form);

}  // namespace fettle::exporter
