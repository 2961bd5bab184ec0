// SPDX-License-Identifier: Apache-2.0
// What fits, as one page that needs no network and prints well. Template:
// fit_page.html beside this file (Mustache); style and charts are those of all
// reports.
#pragma once

#include <filesystem>

#include "artifact/making.h"
#include "chain/fit_source.h"
#include "chain/fit_table.h"

namespace fettle::chain {

// What the page's chart draws: "rows", their names; "parts", for each its name
// and its "bytes" in GiB by row; "bound", the memory there is in GiB, or null.
Json fit_page_data(const FitTable& table);

struct FitPage {
  const FitSource& source;
  const FitTable& table;
  artifact::Making making = {};
};

// Writes the page to `file`.
void write_fit_page(const std::filesystem::path& file, const FitPage& page);

}  // namespace fettle::chain
