// SPDX-License-Identifier: Apache-2.0
#include "text/id_row.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace fettle::text {
namespace {

using Ids = std::vector<std::int32_t>;

Ids read_ids(const JsonObject& row, std::string_view key) {
  const Json& list = row.at(key);
  if (!list.is_array()) row.refuse(key, "must be a list of integers");
  Ids ids;
  ids.reserve(list.size());
  for (const Json& item : list) {
    // Compared as a double, in which every such integer is exact.
    const bool fits = item.is_number_integer() &&
                      item.get<double>() >= INT32_MIN &&
                      item.get<double>() <= INT32_MAX;
    if (!fits) {
      row.refuse(
          key,
          fmt::format(
              "must be a list of token ids, found {}",
              item.dump().substr(0, 40)));
    }
    ids.push_back(item.get<std::int32_t>());
  }
  return ids;
}

// Reads a list of `size` numbers, one for each id.
Ids read_list(const JsonObject& row, std::string_view key, std::size_t size) {
  Ids list = read_ids(row, key);
  if (list.size() != size) {
    row.refuse(
        key,
        fmt::format(
            "has {} entries, but 'input_ids' has {}", list.size(), size));
  }
  return list;
}

Ids read_mask(const JsonObject& row, std::string_view key, std::size_t size) {
  Ids mask = read_list(row, key, size);
  for (const std::int32_t value : mask) {
    if (value != 0 && value != 1) {
      row.refuse(key, fmt::format("must hold 0 and 1, found {}", value));
    }
  }
  return mask;
}

void keep(Ids& list, std::size_t begin, std::size_t end) {
  list =
      Ids(list.begin() + static_cast<std::ptrdiff_t>(begin),
          list.begin() + static_cast<std::ptrdiff_t>(end));
}

void cut_padding(const JsonObject& row, Sample& sample, Ids& positions) {
  constexpr std::string_view kKey = "attention_mask";
  const Ids mask = read_mask(row, kKey, sample.ids.size());
  const auto first = std::find(mask.begin(), mask.end(), 1);
  const auto last = std::find(mask.rbegin(), mask.rend(), 1).base();
  if (first < last && std::find(first, last, 0) != last) {
    row.refuse(
        kKey,
        "hides tokens between others, which is not supported: padding stands "
        "at either end");
  }
  const auto begin = static_cast<std::size_t>(first - mask.begin());
  const auto end =
      first < last ? static_cast<std::size_t>(last - mask.begin()) : begin;
  keep(sample.ids, begin, end);
  keep(sample.labels, begin, end);
  if (!positions.empty()) keep(positions, begin, end);
}

}  // namespace

Sample read_id_row(const JsonObject& row) {
  for (const char* key : {"seq_lengths", "cu_seqlens", "loss_weights"}) {
    if (row.has(key)) {
      row.refuse(key, "is not supported: give each document a row of its own");
    }
  }
  Sample sample;
  sample.ids = read_ids(row, "input_ids");
  const std::size_t size = sample.ids.size();
  sample.labels =
      row.has("labels") ? read_list(row, "labels", size) : sample.ids;
  for (const char* key : {"completion_mask", "assistant_masks", "loss_mask"}) {
    if (!row.has(key)) continue;
    const Ids mask = read_mask(row, key, size);
    for (std::size_t t = 0; t < size; ++t) {
      if (mask[t] == 0) sample.labels[t] = kMasked;
    }
  }
  Ids positions;
  if (row.has("position_ids")) positions = read_list(row, "position_ids", size);
  if (row.has("attention_mask")) cut_padding(row, sample, positions);
  const auto step = [](std::int32_t a, std::int32_t b) { return b != a + 1; };
  if (std::adjacent_find(positions.begin(), positions.end(), step) !=
      positions.end()) {
    row.refuse(
        "position_ids",
        "must ascend by one: give each document a row of its own");
  }
  return sample;
}

}  // namespace fettle::text
