// SPDX-License-Identifier: Apache-2.0
// A board on which all ranks write and read short texts under keys: where they
// meet, and where a rank that ends says why.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace fettle::ranks {

// Functions throw std::exception where the board can't be reached.
class Board {
 public:
  virtual ~Board() = default;
  virtual void set(const std::string& key, const std::string& text) = 0;
  // None where nobody has written it yet.
  virtual std::optional<std::string> get(const std::string& key) = 0;
  // Waits until somebody has written it.
  virtual std::string wait(const std::string& key) = 0;
  // What stands there afterwards: an earlier text stays.
  virtual std::string set_first(
      const std::string& key, const std::string& text) = 0;
  // The same board for another thread.
  virtual std::unique_ptr<Board> another() = 0;
};

}  // namespace fettle::ranks
