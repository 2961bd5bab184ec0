// SPDX-License-Identifier: Apache-2.0
// Fields of a request's JSON object: types and ranges are checked, and what
// nobody asked for is refused in the end.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/json.h"

namespace fettle::serve {

struct NumberRange {
  double least = 0;
  double most = 0;
};

class FieldReader {
 public:
  // Keeps a reference. Throws ApiError unless it is an object.
  explicit FieldReader(const Json& body);

  // The value, or null where there is none. Counts as read.
  const Json* find(const std::string& key);
  double number(const std::string& key, double fallback, NumberRange range);
  std::int64_t integer(
      const std::string& key, std::int64_t fallback, NumberRange range);
  bool boolean(const std::string& key, bool fallback);
  std::optional<std::string> string(const std::string& key);
  // A string, or a list of at most `most` of them.
  std::vector<std::string> strings(const std::string& key, std::size_t most);
  // Taken and not looked at: it changes no answer.
  void ignore(const std::vector<std::string>& keys);
  // Refuses the first key that was not read.
  void finish() const;

 private:
  const Json& body_;
  std::set<std::string> read_;
};

[[noreturn]] void refuse_field(
    const std::string& key, const std::string& message);

}  // namespace fettle::serve
