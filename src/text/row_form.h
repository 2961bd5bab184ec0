// SPDX-License-Identifier: Apache-2.0
// Rows that name their columns in another way, turned into rows of the forms
// that sample_encoder.h reads. Values are handed on as they were written.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fettle::text {

enum class NamedForm { kOwn, kShareGpt, kAlpaca };

struct ColumnMapping {
  std::string target;  // "prompt"
  std::vector<std::string>
      columns;  // joined by line feeds, empty ones left out
};

struct RowForm {
  NamedForm form = NamedForm::kOwn;
  std::vector<ColumnMapping> columns;

  bool empty() const { return form == NamedForm::kOwn && columns.empty(); }
};

// "sharegpt" or "alpaca"; empty: the rows' own. Throws UsageError on others.
NamedForm parse_named_form(std::string_view name);

// "prompt=question,completion=answer"; "prompt=instruction+input" joins two
// columns. Throws UsageError on another syntax and on a target that no form
// has.
std::vector<ColumnMapping> parse_columns(std::string_view text);

// The row in a form of sample_encoder.h; unchanged where it has none of the
// columns that `form` names. `row` is a well-formed object. Throws UserError
// about `subject`.
std::string mapped_row(
    std::string_view row, const RowForm& form, const std::string& subject);

// A row whose prompt and completion are lists of messages as one conversation,
// of which what the completion's assistant says counts.
std::string conversation_row(std::string_view row, const std::string& subject);

// What to do about a row that has none of the forms, or more than one: the keys
// found, and the option that reads them.
std::string form_advice(std::string_view row);

}  // namespace fettle::text
