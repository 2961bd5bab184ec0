// SPDX-License-Identifier: Apache-2.0
#include "text/file_kind.h"

#include <fmt/format.h>

#include <algorithm>

namespace fettle::text {
namespace {

using namespace std::string_view_literals;

struct Kind {
  std::string_view begin;
  const char* sentence;  // {}: the path
};

constexpr Kind kKinds[] = {
    {"PAR1"sv,
     "is a Parquet table; make it JSON Lines: python -c \"import pandas; "
     "pandas.read_parquet('{0}').to_json('data.jsonl', orient='records', "
     "lines=True)\""},
    {"ARROW1"sv,
     "is an Arrow file; make it JSON Lines: python -c \"import pyarrow.feather "
     "as f; f.read_feather('{0}').to_json('data.jsonl', orient='records', "
     "lines=True)\""},
    {"\xff\xff\xff\xff"sv,
     "is an Arrow stream; make it JSON Lines: python -c \"import datasets; "
     "datasets.Dataset.from_file('{0}').to_json('data.jsonl')\""},
    {"version https://git-lfs"sv,
     "is a pointer of Git LFS, not the data; get that: git lfs pull"},
    {"PK\x03\x04"sv, "is a zip archive; unpack it: unzip {0}"},
    {"\x28\xb5\x2f\xfd"sv, "is packed by zstd; unpack it: zstd -d {0}"},
    {"BZh"sv, "is packed by bzip2; unpack it: bunzip2 {0}"},
    {"\xfd\x37zXZ"sv, "is packed by xz; unpack it: unxz {0}"},
    {"7z\xbc\xaf"sv, "is a 7-Zip archive; unpack it: 7z x {0}"},
    {"%PDF"sv,
     "is a PDF document; take its text out (pdftotext) and write each document "
     "as a line {{\"text\": …}}"},
    {"SQLite format 3"sv,
     "is an SQLite database; write its rows as JSON Lines"},
    {"GGUF"sv, "is a model, not data"},
    {"\xff\xfe"sv,
     "is UTF-16; make it UTF-8: iconv -f UTF-16 -t UTF-8 {0} > data.jsonl"},
    {"\xfe\xff"sv,
     "is UTF-16; make it UTF-8: iconv -f UTF-16 -t UTF-8 {0} > data.jsonl"},
};

std::size_t commas(std::string_view line, char separator) {
  return static_cast<std::size_t>(
      std::count(line.begin(), line.end(), separator));
}

// Whether two lines have as many separators each.
bool is_table(std::string_view head, char separator) {
  const std::size_t end = head.find('\n');
  if (end == std::string_view::npos) return false;
  const std::string_view first = head.substr(0, end);
  const std::string_view rest = head.substr(end + 1);
  const std::size_t columns = commas(first, separator);
  return columns > 0 &&
         commas(rest.substr(0, rest.find('\n')), separator) == columns;
}

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

}  // namespace

std::string foreign_kind(
    std::string_view head, const std::filesystem::path& path) {
  for (const Kind& kind : kKinds) {
    if (head.starts_with(kind.begin)) {
      return fmt::format(fmt::runtime(kind.sentence), path.string());
    }
  }
  if (head.size() > 262 && head.substr(257, 5) == "ustar") {
    return fmt::format(
        "is a tar archive; unpack it: tar -xf {}", path.string());
  }
  const std::size_t first = head.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || head[first] == '{' ||
      head[first] == '[') {
    return "";
  }
  if (head.find('\0') != std::string_view::npos) {
    return "is no text; expected JSON Lines";
  }
  const std::string extension = lower(path.extension().string());
  const std::string beginning = lower(
      std::string(head.substr(first, std::string_view("<!doctype").size())));
  if (beginning.starts_with("<!doctype") || beginning.starts_with("<html")) {
    return "is a web page, not the data; look into it, and get the file again";
  }
  const bool tabs = extension == ".tsv" || is_table(head, '\t');
  if (tabs || extension == ".csv" || is_table(head, ',')) {
    return fmt::format(
        "is a table of {0}-separated values; make it JSON Lines: python -c "
        "\"import pandas; pandas.read_csv('{1}'{2}).to_json('data.jsonl', "
        "orient='records', lines=True)\"",
        tabs ? "tab" : "comma",
        path.string(),
        tabs ? ", sep='\\t'" : "");
  }
  if (extension == ".txt" || extension == ".md") {
    return "is plain text; expected JSON Lines: write each document as a line "
           "{\"text\": …}";
  }
  return "";
}

}  // namespace fettle::text
