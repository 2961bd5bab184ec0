// SPDX-License-Identifier: Apache-2.0
#include "core/json_numbers.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "core/json.h"

namespace fettle {
namespace {

constexpr std::string_view kNumber = "-+.0123456789eE";
constexpr std::string_view kBefore = " \t\r\n:,[";
constexpr std::string_view kBehind = " \t\r\n,]}";

// Whether a number too large for 64 bits of floating point is spelled.
bool overflows(std::string_view token) {
  try {
    Json unused = Json::parse(token);
    return false;
  } catch (const Json::out_of_range&) {
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

// The end of the string that begins at `at`.
std::size_t string_end(std::string_view text, std::size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return std::min(at + 1, text.size());
}

struct Found {
  std::size_t length = 0;  // 0: no such value
  std::size_t kind = 0;    // see SpelledText::spellings
};

Found value_at(std::string_view text, std::size_t at) {
  constexpr std::array<std::string_view, 3> kNames = {
      "NaN", "Infinity", "-Infinity"};
  if (at > 0 && kBefore.find(text[at - 1]) == std::string_view::npos) return {};
  const std::string_view rest = text.substr(at);
  Found found;
  for (std::size_t kind = 0; kind < kNames.size(); ++kind) {
    if (rest.starts_with(kNames[kind])) found = {kNames[kind].size(), kind};
  }
  if (found.length == 0) {
    const std::size_t length =
        std::min(rest.find_first_not_of(kNumber), rest.size());
    // 308 digits are the most that surely fit.
    const std::string_view token = rest.substr(0, length);
    const bool large =
        token.size() > 308 || token.find_first_of("eE") != token.npos;
    if (large && overflows(token)) {
      found = {length, token[0] == '-' ? std::size_t{2} : std::size_t{1}};
    }
  }
  const bool ends = found.length == rest.size() ||
                    kBehind.find(rest[found.length]) != std::string_view::npos;
  return ends ? found : Found{};
}

std::array<std::string, 3> unused_spellings(std::string_view text) {
  std::string zero = "0.0e0";
  while (text.find(zero) != std::string_view::npos) zero += '0';
  return {zero + "1", zero + "2", zero + "3"};
}

}  // namespace

std::optional<double> SpelledText::value(std::string_view spelling) const {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr std::array<double, 3> kValues = {
      std::numeric_limits<double>::quiet_NaN(), kInfinity, -kInfinity};
  const auto found = std::ranges::find(spellings, spelling);
  if (found == spellings.end()) return std::nullopt;
  return kValues[static_cast<std::size_t>(found - spellings.begin())];
}

std::size_t SpelledText::original(std::size_t position) const {
  const auto behind =
      std::ranges::upper_bound(changes, position, {}, &Change::end);
  if (behind == changes.begin()) return position;
  const Change& last = *std::prev(behind);
  return last.original + (position - last.end);
}

std::optional<SpelledText> spell_non_finite(std::string_view text) {
  SpelledText result;
  std::size_t copied = 0;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"') {
      at = string_end(text, at);
      continue;
    }
    const bool number = c == '-' || (c >= '0' && c <= '9');
    const Found found =
        number || c == 'N' || c == 'I' ? value_at(text, at) : Found{};
    if (found.length == 0) {
      at = number ? std::min(text.find_first_not_of(kNumber, at), text.size())
                  : at + 1;
      continue;
    }
    if (result.changes.empty()) result.spellings = unused_spellings(text);
    result.text.append(text, copied, at - copied);
    result.text += result.spellings[found.kind];
    at += found.length;
    copied = at;
    result.changes.push_back({result.text.size(), at});
  }
  if (result.changes.empty()) return std::nullopt;
  result.text.append(text, copied);
  return result;
}

}  // namespace fettle
