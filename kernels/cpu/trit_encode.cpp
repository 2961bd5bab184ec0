// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/trit_code.h"

namespace fettle::kernels::cpu {
namespace {

// Rows of a task: enough trits that starting one costs nothing beside them.
constexpr std::int64_t kTaskTrits = 1 << 16;

struct RowTasks {
  explicit RowTasks(const TritRows& of)
      : rows(of.rows),
        size(std::max<std::int64_t>(
            1, kTaskTrits / std::max<std::int64_t>(1, of.cols))),
        count((rows + size - 1) / size) {}

  std::int64_t begin(std::int64_t task) const { return task * size; }
  std::int64_t end(std::int64_t task) const {
    return std::min(rows, begin(task) + size);
  }

  std::int64_t rows, size, count;
};

void parse_row(
    const std::int8_t* trits,
    std::int64_t cols,
    const TritTree& tree,
    std::vector<std::uint16_t>& words) {
  std::int32_t node = 0;
  for (std::int64_t i = 0; i < cols; ++i) {
    node = tree.next[static_cast<std::size_t>(node)][trits[i] & 3];
    if (node < 0) {
      words.push_back(static_cast<std::uint16_t>(~node));
      node = 0;
    }
  }
  if (node > 0) {
    words.push_back(static_cast<std::uint16_t>(
        tree.likeliest[static_cast<std::size_t>(node)]));
  }
}

void write_row(
    std::span<const std::uint16_t> words,
    const TritCodes& codes,
    std::uint8_t* to) {
  std::uint64_t bits = 0;
  int size = 0;
  for (const std::uint16_t word : words) {
    bits |= std::uint64_t{codes.codes[word]} << size;
    size += codes.bits[word];
    if (size >= 32) {
      std::memcpy(to, &bits, 4);
      to += 4;
      bits >>= 32;
      size -= 32;
    }
  }
  // Nothing may be left to write, and nowhere.
  if (size > 0)
    std::memcpy(to, &bits, static_cast<std::size_t>((size + 7) / 8));
}

}  // namespace

std::array<std::int64_t, 3> count_trits(const TritRows& rows) {
  std::array<std::int64_t, 3> counts{};
  const RowTasks tasks(rows);
  std::vector<std::array<std::int64_t, 3>> of_task(
      static_cast<std::size_t>(tasks.count));
  parallel_tasks(tasks.count, [&](std::int64_t task) {
    std::int64_t zeros = 0, pluses = 0, minuses = 0;
    const std::int8_t* end = rows.trits + tasks.end(task) * rows.cols;
    for (const std::int8_t* t = rows.trits + tasks.begin(task) * rows.cols;
         t != end;
         ++t) {
      zeros += *t == 0;
      pluses += *t == 1;
      minuses += *t == -1;
    }
    of_task[static_cast<std::size_t>(task)] = {zeros, pluses, minuses};
  });
  for (const auto& part : of_task) {
    for (std::size_t i = 0; i < 3; ++i) counts[i] += part[i];
  }
  return counts;
}

TritWords parse_trits(const TritRows& rows, const TritTree& tree) {
  TritWords all;
  all.row_begin.resize(static_cast<std::size_t>(rows.rows) + 1);
  const RowTasks tasks(rows);
  std::vector<std::vector<std::uint16_t>> of_task(
      static_cast<std::size_t>(tasks.count));
  parallel_tasks(tasks.count, [&](std::int64_t task) {
    auto& words = of_task[static_cast<std::size_t>(task)];
    for (std::int64_t r = tasks.begin(task); r < tasks.end(task); ++r) {
      const std::size_t before = words.size();
      parse_row(rows.trits + r * rows.cols, rows.cols, tree, words);
      all.row_begin[static_cast<std::size_t>(r) + 1] =
          static_cast<std::int64_t>(words.size() - before);
    }
  });
  for (std::size_t r = 1; r < all.row_begin.size(); ++r) {
    all.row_begin[r] += all.row_begin[r - 1];
  }
  for (auto& words : of_task) {
    all.words.insert(all.words.end(), words.begin(), words.end());
    words = {};
  }
  return all;
}

std::vector<std::int64_t> coded_row_begin(
    const TritWords& rows, const TritCodes& codes) {
  std::vector<std::int64_t> begin{0};
  for (std::size_t r = 0; r + 1 < rows.row_begin.size(); ++r) {
    std::int64_t bits = 0;
    for (std::int64_t i = rows.row_begin[r]; i < rows.row_begin[r + 1]; ++i) {
      bits += codes.bits[rows.words[static_cast<std::size_t>(i)]];
    }
    begin.push_back(begin.back() + (bits + 7) / 8);
  }
  return begin;
}

void write_coded_rows(
    const TritWords& rows,
    const TritCodes& codes,
    std::span<const std::int64_t> row_begin,
    std::uint8_t* to) {
  const std::span<const std::uint16_t> all = rows.words;
  const auto count = static_cast<std::int64_t>(row_begin.size()) - 1;
  const std::int64_t of_row =
      row_begin.back() / std::max<std::int64_t>(1, count);
  parallel_rows(count, of_row, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const auto at = static_cast<std::size_t>(r);
      const auto first = static_cast<std::size_t>(rows.row_begin[at]);
      const auto last = static_cast<std::size_t>(rows.row_begin[at + 1]);
      write_row(all.subspan(first, last - first), codes, to + row_begin[at]);
    }
  });
}

}  // namespace fettle::kernels::cpu
