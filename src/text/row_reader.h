// SPDX-License-Identifier: Apache-2.0
// The rows of a data file as they were written: JSON Lines or one JSON array,
// plain or packed by gzip.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace fettle::text {

class RowReader {
 public:
  // Throws UserError when the file can't be read or is clearly of another kind
  // (Parquet, CSV, an archive, ...), with what to do about it.
  explicit RowReader(std::filesystem::path path);
  ~RowReader();
  RowReader(RowReader&&) noexcept;

  // The text of the next row, valid until the next call; nothing after the
  // last. Blank lines are no rows.
  std::optional<std::string_view> next();

  // Names the row read last: "data.jsonl:17" or "data.json, item 17".
  std::string subject() const;
  // The line of that row, or its place in the array, from 1.
  std::int64_t number() const { return number_; }

 private:
  class Stream;

  std::optional<std::string_view> next_line();
  std::optional<std::string_view> next_item();
  void read_array();
  [[noreturn]] void refuse(std::string_view why) const;

  std::filesystem::path path_;
  std::unique_ptr<Stream> stream_;
  std::string text_;    // the row, or the whole array
  std::size_t at_ = 0;  // in the array
  bool is_array_ = false;
  std::int64_t number_ = 0;
};

}  // namespace fettle::text
