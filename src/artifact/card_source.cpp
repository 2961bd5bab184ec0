// SPDX-License-Identifier: Apache-2.0
#include "artifact/card_source.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <sstream>
#include <string_view>

namespace fettle::artifact {
namespace {

constexpr std::size_t kMostBytes = 64 << 10;
constexpr std::string_view kFence = "---";

bool is_carried(std::string_view line) {
  constexpr std::array<std::string_view, 5> kKeys{
      "license:",
      "license_name:",
      "license_link:",
      "language:",
      "pipeline_tag:"};
  return std::ranges::any_of(
      kKeys, [&](std::string_view key) { return line.starts_with(key); });
}

// Lines of the entry above.
bool goes_on(std::string_view line) {
  return line.starts_with(' ') || line.starts_with('-');
}

std::string next_line(std::istream& text, bool& more) {
  std::string line;
  more = static_cast<bool>(std::getline(text, line));
  while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) {
    line.pop_back();
  }
  return line;
}

}  // namespace

std::string beginning_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMostBytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(
      static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return text;
}

std::string carried_front_matter(const std::filesystem::path& readme) {
  std::istringstream text(beginning_of(readme));
  bool more = true;
  if (next_line(text, more) != kFence) return {};
  std::string kept;
  bool keeping = false;
  for (std::string line = next_line(text, more); more && line != kFence;
       line = next_line(text, more)) {
    if (!goes_on(line)) keeping = is_carried(line);
    if (keeping) kept += line + "\n";
  }
  return more ? kept : std::string();  // the end must be there
}

}  // namespace fettle::artifact
