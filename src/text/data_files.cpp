// SPDX-License-Identifier: Apache-2.0
// Which files a --data option names.
#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "text/dataset.h"

namespace fettle::text {
namespace {

namespace fs = std::filesystem;

std::optional<double> parse_weight(std::string_view text) {
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

bool exists(std::string_view path) {
  std::error_code ignored;
  return !path.empty() && fs::exists(fs::path(path), ignored);
}

// The position of `wanted` without a backslash before it.
std::size_t find_bare(std::string_view text, char wanted, std::size_t from) {
  for (std::size_t i = from; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) {
      ++i;
    } else if (text[i] == wanted) {
      return i;
    }
  }
  return std::string_view::npos;
}

std::string without_escapes(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '\\' && i + 1 < text.size() &&
                        (text[i + 1] == ',' || text[i + 1] == ':');
    out += text[escape ? ++i : i];
  }
  return out;
}

bool is_data_name(const std::string& name) {
  static constexpr std::array<std::string_view, 6> kEnds = {
      ".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz"};
  return !name.starts_with(".") &&
         std::ranges::any_of(
             kEnds, [&](std::string_view end) { return name.ends_with(end); });
}

std::vector<fs::path> folder_files(const fs::path& folder) {
  std::vector<fs::path> files;
  std::string others;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory()) continue;
    if (is_data_name(name)) {
      files.push_back(entry.path());
    } else if (others.empty()) {
      others = name;
    }
  }
  if (files.empty()) {
    throw UserError(
        "data",
        folder.string(),
        fmt::format(
            "expected a folder with *.jsonl, *.json or *.jsonl.gz, found {}; "
            "name a file or a pattern",
            others.empty() ? "none"
                           : fmt::format("'{}' and the like", others)));
  }
  return files;
}

std::vector<fs::path> matching_files(const std::string& pattern) {
  glob_t found{};
  const int code = glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<fs::path> files;
  for (std::size_t i = 0; code == 0 && i < found.gl_pathc; ++i) {
    if (!fs::is_directory(found.gl_pathv[i])) {
      files.emplace_back(found.gl_pathv[i]);
    }
  }
  globfree(&found);
  if (files.empty()) {
    throw UserError("data", pattern, "no file matches this pattern");
  }
  return files;
}

// In proportion to their sizes.
void share_weight(
    std::vector<fs::path> paths,
    double weight,
    std::vector<WeightedFile>& files) {
  std::ranges::sort(paths);
  double bytes = 0;
  for (const auto& path : paths) {
    bytes += static_cast<double>(fs::file_size(path));
  }
  for (const auto& path : paths) {
    const auto size = static_cast<double>(fs::file_size(path));
    // An empty file is refused when it is read.
    const double share = size > 0 ? size / bytes : 1.0;
    files.push_back({path, weight * share});
  }
}

void add_item(
    std::string_view item,
    std::string_view whole,
    std::vector<WeightedFile>& files) {
  double weight = 1.0;
  std::string path(item);
  if (!exists(item)) {
    std::size_t colon = item.rfind(':');
    if (colon != std::string_view::npos && colon > 0 &&
        item[colon - 1] == '\\') {
      colon = std::string_view::npos;
    }
    if (colon != std::string_view::npos) {
      if (const auto number = parse_weight(item.substr(colon + 1))) {
        weight = *number;
        item = item.substr(0, colon);
      }
    }
    path = exists(item) ? std::string(item) : without_escapes(item);
  }
  if (!(weight > 0) || !std::isfinite(weight)) {
    throw UsageError(
        "data",
        whole,
        fmt::format("a weight must be positive, found {}", weight));
  }
  if (path.empty()) {
    throw UsageError(
        "data", whole, "expected files such as a.jsonl:2,b.jsonl:1");
  }
  if (fs::is_directory(path)) {
    share_weight(folder_files(path), weight, files);
  } else if (!exists(path) && path.find_first_of("*?[") != path.npos) {
    share_weight(matching_files(path), weight, files);
  } else {
    files.push_back({path, weight});
  }
}

}  // namespace

std::vector<WeightedFile> parse_data_option(std::string_view text) {
  std::vector<WeightedFile> files;
  if (exists(text)) {
    add_item(text, text, files);
    return files;
  }
  std::size_t begin = 0;
  while (true) {
    const std::size_t comma = find_bare(text, ',', begin);
    add_item(text.substr(begin, comma - begin), text, files);
    if (comma == std::string_view::npos) return files;
    begin = comma + 1;
  }
}

}  // namespace fettle::text
