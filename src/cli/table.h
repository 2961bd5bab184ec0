// SPDX-License-Identifier: Apache-2.0
// Columns of text for people: the first aligned left, the others right.
#pragma once

#include <string>
#include <vector>

namespace fettle::cli {

class Table {
 public:
  explicit Table(std::vector<std::string> header);
  // As many cells as the header has.
  void add(std::vector<std::string> row);
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace fettle::cli
