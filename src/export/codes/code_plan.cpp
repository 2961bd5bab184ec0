// SPDX-License-Identifier: Apache-2.0
#include "export/codes/code_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "export/stock_layout.h"

namespace fettle::exporter {
namespace {

using model::PackedHeader;
using model::Role;
using model::WeightId;

// Any number of codes of 2, 3, 4 or 8 bits fills words.
constexpr std::int64_t kWordUnit = 32;

bool is_ternary(const PackedHeader& h) {
  return h.kind != kernels::PackedKind::kInt;
}

// Bits of the least signed integer that holds every code - zero.
std::int64_t signed_bits(const PackedHeader& h) {
  if (is_ternary(h)) return 2;
  return h.zeros ? h.bits + 1 : h.bits;
}

std::string form_name(const CodeForm& form) {
  return fmt::format(
      "int{}{}{}",
      form.bits,
      form.symmetric ? "" : " with zeros",
      form.group > 0 ? fmt::format(" in groups of {}", form.group)
                     : " in whole rows");
}

class CodePlanner {
 public:
  CodePlanner(
      const SourceForms& source,
      const ExportOptions& options,
      const CodeRules& rules)
      : source_(source),
        options_(options),
        rules_(rules),
        config_(stock_config(source.config, options)) {}

  CodePlan plan() {
    refuse_stacks();
    find_forms();
    if (rules_.experts_alike) unify_experts();
    fit_groups();
    CodePlan plan;
    plan.config = with_widths(config_, padded_widths());
    plan.experts = commonest_form();
    for (const WeightId& id : model::model_weights(plan.config)) {
      plan.weights.push_back({id, form_of(id, plan.experts)});
      if (plan.weights.back().form)
        check_words(plan.config, plan.weights.back());
    }
    return plan;
  }

 private:
  struct Found {
    WeightId id;
    const PackedHeader* header;
    CodeForm form;
  };

  [[noreturn]] void refuse(const WeightId& id, const std::string& why) const {
    throw UserError("export", model::weight_name(config_, id), why);
  }

  std::int64_t numel(const WeightId& id) const {
    return model::weight_numel(source_.config, id);
  }

  void refuse_stacks() const {
    if (!model::weight_row(config_, Role::kExpertUp).stacked_only) return;
    throw UserError(
        "export",
        config_.family,
        fmt::format(
            "its loaders find experts in stacks, of which {} holds none; use "
            "hf, gguf or ragged",
            rules_.name));
  }

  void find_forms() {
    for (const WeightId& id : model::model_weights(source_.config)) {
      if (id.role == Role::kEmbedTokens || id.role == Role::kLmHead) continue;
      const PackedHeader* const header = source_.packed(id);
      if (header == nullptr) {
        refuse_dense_expert(id);
      } else {
        found_.push_back({id, header, source_form(id, *header)});
      }
    }
    if (found_.empty()) {
      throw UserError(
          "export",
          source_.name,
          fmt::format(
              "has no packed weights, which {} is for; run fettle quant first, "
              "or use hf",
              rules_.name));
    }
  }

  void refuse_dense_expert(const WeightId& id) const {
    if (!rules_.experts_alike || !model::is_expert_role(id.role)) return;
    if (numel(id) == 0) return;
    refuse(
        id,
        fmt::format(
            "is not packed; loaders of {} would not read it, since they take "
            "all experts from codes: quantize all experts, with --bits and "
            "--down other than keep",
            rules_.name));
  }

  CodeForm source_form(const WeightId& id, const PackedHeader& h) const {
    CodeForm form{
        .bits = h.bits,
        .group = h.groups() > 1 ? h.group : 0,
        .symmetric = !h.zeros};
    if (is_ternary(h) || (h.zeros && alike(id))) {
      const std::string what = is_ternary(h) ? "ternary" : form_name(form);
      if (!options_.recode) {
        refuse(
            id,
            fmt::format(
                "is {}, for which {} has no place{}; quantize it as int4 or "
                "int8 without zero points, export with --recode to hold the "
                "same values in more bits, or use gguf",
                what,
                rules_.name,
                is_ternary(h) ? "" : " in experts"));
      }
      form.bits = recoded_bits(id, signed_bits(h));
      form.symmetric = true;
    }
    form.group = known_group(id, form.group);
    return form;
  }

  bool alike(const WeightId& id) const {
    return rules_.experts_alike && model::is_expert_role(id.role);
  }

  std::int64_t recoded_bits(const WeightId& id, std::int64_t needed) const {
    for (const std::int64_t bits : rules_.recoded_bits) {
      if (bits >= needed) return bits;
    }
    refuse(
        id,
        fmt::format(
            "needs {} bits without zero points, more than {} has; quantize it "
            "without zero points",
            needed,
            rules_.name));
  }

  std::int64_t known_group(const WeightId& id, std::int64_t group) const {
    const auto& known = rules_.groups;
    if (group == 0 || known.empty() || std::ranges::count(known, group) > 0) {
      return group;
    }
    std::int64_t best = 0;
    for (const std::int64_t one : known) {
      if (group % one == 0) best = std::max(best, one);
    }
    if (options_.recode && best > 0) return best;
    refuse(
        id,
        fmt::format(
            "has groups of {}; {} knows {}: quantize with one of those{}",
            group,
            rules_.name,
            fmt::join(known, ", "),
            best > 0 ? ", or export with --recode" : ""));
  }

  // Experts of one scheme, or made so without changing a value.
  void unify_experts() {
    const Found* first = nullptr;
    CodeForm all;
    bool mixed = false;
    std::int64_t needed = 0;
    for (const Found& one : found_) {
      if (!alike(one.id) || numel(one.id) == 0) continue;
      if (first == nullptr) all.bits = (first = &one)->form.bits;
      needed = std::max(needed, one.form.bits);
      mixed |= one.form.bits != all.bits;
      all.group = std::gcd(all.group, one.form.group);
    }
    if (first == nullptr) return;
    for (const Found& one : found_) {
      if (!alike(one.id) || numel(one.id) == 0) continue;
      const bool regroups = one.form.group > 0 && one.form.group != all.group;
      if (options_.recode || (one.form.bits == all.bits && !regroups)) continue;
      refuse(
          one.id,
          fmt::format(
              "is {} where the first expert is {}; {} has one scheme for all "
              "experts: quantize them alike, or export with --recode",
              form_name(one.form),
              form_name(first->form),
              rules_.name));
    }
    if (mixed) all.bits = recoded_bits(first->id, needed);
    for (Found& one : found_) {
      if (alike(one.id)) one.form = all;
    }
  }

  // Rows must be whole groups; those of a down projection are filled up to it.
  void fit_groups() {
    if (rules_.short_groups) return;
    std::int64_t experts = 0;
    for (Found& one : found_) {
      if (one.form.group == 0 || model::is_down_role(one.id.role)) continue;
      const std::int64_t cols = model::weight_shape(config_, one.id)[1];
      if (cols % one.form.group == 0) continue;
      if (!options_.recode) {
        refuse(
            one.id,
            fmt::format(
                "has rows of {} weights, no whole number of groups of {}; "
                "quantize with a --group that divides {}, or export with "
                "--recode",
                cols,
                one.form.group,
                cols));
      }
      one.form.group = std::gcd(cols, one.form.group);
      if (alike(one.id)) experts = one.form.group;
    }
    if (experts == 0) return;
    for (Found& one : found_) {
      if (alike(one.id)) one.form.group = experts;
    }
  }

  MlpWidths padded_widths() const {
    const std::int64_t least = rules_.whole_words ? kWordUnit : 1;
    MlpWidths units{std::max(least, kLoaderUnit), least, least};
    for (const Found& one : found_) {
      if (one.form.group == 0) continue;
      std::int64_t* unit = nullptr;
      if (one.id.role == Role::kExpertDown) unit = &units.expert;
      if (one.id.role == Role::kSharedDown) unit = &units.shared;
      if (one.id.role == Role::kDenseDown) unit = &units.dense;
      if (unit != nullptr) *unit = std::lcm(*unit, one.form.group);
    }
    MlpWidths widths = widest(config_);
    widths.expert = rounded_up(widths.expert, units.expert);
    widths.shared = rounded_up(widths.shared, units.shared);
    widths.dense = rounded_up(widths.dense, units.dense);
    if (config_.shared_expert == model::SharedExpert::kPlain &&
        widths.expert > 0) {
      widths.shared =
          rounded_up(widths.shared, std::lcm(widths.expert, units.shared));
    }
    return widths;
  }

  CodeForm commonest_form() const {
    std::map<CodeForm, std::int64_t> counts;
    for (const Found& one : found_) {
      // One expert outweighs all that is no expert.
      counts[one.form] += model::is_expert_role(one.id.role) ? 1'000'000 : 1;
    }
    return std::ranges::max_element(
               counts, {}, [](const auto& count) { return count.second; })
        ->first;
  }

  std::optional<CodeForm> form_of(const WeightId& id, const CodeForm& experts) {
    if (next_ < found_.size() && found_[next_].id == id) {
      return found_[next_++].form;
    }
    const bool empty = model::is_expert_role(id.role) && numel(id) == 0;
    return empty ? std::optional(experts) : std::nullopt;
  }

  void check_words(
      const model::ModelConfig& config, const PlannedWeight& weight) const {
    if (!rules_.whole_words) return;
    for (const std::int64_t side : model::weight_shape(config, weight.id)) {
      if (side * weight.form->bits % 32 == 0) continue;
      refuse(
          weight.id,
          fmt::format(
              "has a side of {} codes of {} bits, no whole number of 32-bit "
              "words, as {} packs them; quantize it as int8, or use hf",
              side,
              weight.form->bits,
              rules_.name));
    }
  }

  const SourceForms& source_;
  const ExportOptions& options_;
  const CodeRules& rules_;
  model::ModelConfig config_;
  std::vector<Found> found_;  // in canonical order
  std::size_t next_ = 0;
};

}  // namespace

CodePlan plan_codes(
    const SourceForms& source,
    const ExportOptions& options,
    const CodeRules& rules) {
  return CodePlanner(source, options, rules).plan();
}

CodeMatrix source_codes(const model::ModelReader& reader, const WeightId& id) {
  if (reader.packed_header(id) != nullptr) {
    return open_codes(reader.read_packed(id));
  }
  const auto shape = model::weight_shape(reader.config(), id);
  FETTLE_ASSERT(shape[0] * shape[1] == 0);
  const std::vector<std::int64_t> groups{shape[0], shape[1] > 0 ? 1 : 0};
  return {
      .bits = 2,
      .group = std::max<std::int64_t>(shape[1], 1),
      .codes = at::empty(shape, at::kByte),
      .scales = at::ones(groups, at::kFloat),
      .zeros = at::zeros(groups, at::kByte)};
}

CodeMatrix planned_codes(
    const model::ModelReader& reader,
    const model::ModelConfig& config,
    const WeightId& id,
    const CodeForm& form) {
  CodeMatrix m = source_codes(reader, id);
  const PackedHeader* const header = reader.packed_header(id);
  const bool as_it_is = header != nullptr && !is_ternary(*header) &&
                        header->bits == form.bits &&
                        header->zeros != form.symmetric;
  if (!as_it_is) m = centered(m, form.bits);
  const auto shape = model::weight_shape(config, id);
  m = padded(m, shape[0], shape[1]);
  return regrouped(
      m, form.group > 0 ? form.group : std::max<std::int64_t>(shape[1], 1));
}

}  // namespace fettle::exporter
