// SPDX-License-Identifier: Apache-2.0
#include "cli/recipe_node.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "cli/spelling.h"
#include "core/error.h"

namespace fettle::cli {
namespace {

const char* kind_of(const YAML::Node& node) {
  if (node.IsSequence()) return "a list";
  if (node.IsMap()) return "a map";
  if (node.IsScalar()) return "a value";
  return "nothing";
}

}  // namespace

void RecipeReader::refuse(
    const YAML::Mark& mark, const std::string& message) const {
  const std::string place =
      mark.is_null() ? file_ : fmt::format("{}:{}", file_, mark.line + 1);
  throw UserError("recipe", place, message);
}

void RecipeReader::refuse(
    const YAML::Node& node, const std::string& message) const {
  refuse(node.Mark(), message);
}

YAML::Node RecipeReader::document() const {
  std::vector<YAML::Node> documents;
  try {
    documents = YAML::LoadAllFromFile(file_);
  } catch (const YAML::BadFile&) {
    refuse(YAML::Mark::null_mark(), "cannot be opened for reading");
  } catch (const YAML::Exception& error) {
    refuse(error.mark, "is not valid YAML: " + error.msg);
  }
  if (documents.empty()) refuse(YAML::Mark::null_mark(), "is empty");
  if (documents.size() > 1) {
    refuse(
        documents[1],
        "expected one document, found a second behind a line of ---; leave the "
        "line out");
  }
  return documents.front();
}

void RecipeReader::for_each(
    const YAML::Node& map, const std::string& place, const Entry& visit) const {
  if (!map.IsMap()) {
    refuse(
        map,
        fmt::format(
            "{} must be a map of keys and values, not {}",
            place,
            kind_of(map)));
  }
  std::set<std::string> seen;
  for (const auto& entry : map) {
    const std::string key = text(entry.first, "a key of " + place);
    if (!seen.insert(key).second) {
      refuse(
          entry.first,
          fmt::format("'{}' stands twice in {}; leave one out", key, place));
    }
    visit(key, entry.second);
  }
}

void RecipeReader::for_each_known(
    const YAML::Node& map,
    const std::string& place,
    const std::vector<std::string>& known,
    const Entry& visit) const {
  for_each(map, place, [](const std::string&, const YAML::Node&) {});
  for (const auto& entry : map) {
    known_word(entry.first, entry.first.Scalar(), "key of " + place, known);
  }
  for_each(map, place, visit);
}

std::string RecipeReader::text(
    const YAML::Node& node, std::string_view key) const {
  if (!node.IsScalar()) {
    refuse(
        node,
        fmt::format("'{}' must be a value, found {}", key, kind_of(node)));
  }
  if (node.Scalar().empty()) {
    refuse(node, fmt::format("'{}' is empty", key));
  }
  return node.Scalar();
}

std::int64_t RecipeReader::whole_number(
    const YAML::Node& node, std::string_view key, std::int64_t least) const {
  const std::string found = text(node, key);
  std::int64_t value = 0;
  const char* end = found.data() + found.size();
  const auto [stop, error] = std::from_chars(found.data(), end, value);
  if (error != std::errc() || stop != end || value < least) {
    refuse(
        node,
        fmt::format(
            "'{}' must be a whole number of at least {}, found '{}'",
            key,
            least,
            found));
  }
  return value;
}

std::vector<std::string> RecipeReader::texts(
    const YAML::Node& node, std::string_view key) const {
  if (!node.IsSequence()) return {text(node, key)};
  if (node.size() == 0) refuse(node, fmt::format("'{}' is empty", key));
  std::vector<std::string> result;
  for (const auto& part : node) result.push_back(text(part, key));
  return result;
}

const std::string& RecipeReader::known_word(
    const YAML::Node& node,
    const std::string& word,
    const std::string& what,
    const std::vector<std::string>& known) const {
  if (std::ranges::find(known, word) != known.end()) return word;
  const std::string near = nearest(word, known);
  refuse(
      node,
      fmt::format(
          "unknown {} '{}'{}; known are {}",
          what,
          word,
          near.empty() ? "" : fmt::format(": did you mean '{}'?", near),
          fmt::join(known, ", ")));
}

}  // namespace fettle::cli
