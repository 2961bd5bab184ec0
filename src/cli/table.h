// SPDX-License-Identifier: Apache-2.0
// Columns of text for people: the first aligned left, the others right.
#pragma once

#include <string>
#include <vector>

namespace fettle::cli {

class Table {
 public:
  explicit Table(std::vector<std::string> header);
  // `row` must have as many cells as the header.
  void add(std::vector<std::string> row);
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace fettle::cli
