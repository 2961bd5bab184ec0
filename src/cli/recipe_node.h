// SPDX-License-Identifier: Apache-2.0
// Nodes of a recipe's YAML, read strictly: whatever is not as expected is a
// UserError that names the file and the line.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fettle::cli {

class RecipeReader {
 public:
  explicit RecipeReader(std::string file) : file_(std::move(file)) {}

  // Throws a UserError about the place of `node` in the file.
  [[noreturn]] void refuse(
      const YAML::Node& node, const std::string& message) const;
  [[noreturn]] void refuse(
      const YAML::Mark& mark, const std::string& message) const;

  // The one document of the file.
  YAML::Node document() const;

  using Entry = std::function<void(const std::string& key, const YAML::Node&)>;
  // Visits a map's entries in order; refuses what is no map and a key that
  // occurs twice. `place` names the map in errors.
  void for_each(
      const YAML::Node& map,
      const std::string& place,
      const Entry& visit) const;
  // Does what for_each does, and refuses a key that is not in `known`.
  void for_each_known(
      const YAML::Node& map,
      const std::string& place,
      const std::vector<std::string>& known,
      const Entry& visit) const;

  // One value; not a list, a map, nothing, or an empty text.
  std::string text(const YAML::Node& node, std::string_view key) const;
  std::int64_t whole_number(
      const YAML::Node& node, std::string_view key, std::int64_t least) const;
  // One value or a list of them, at least one.
  std::vector<std::string> texts(
      const YAML::Node& node, std::string_view key) const;
  // `word` where it is one of `known`; else refused, with the nearest named.
  const std::string& known_word(
      const YAML::Node& node,
      const std::string& word,
      const std::string& what,
      const std::vector<std::string>& known) const;

 private:
  std::string file_;
};

}  // namespace fettle::cli
