// SPDX-License-Identifier: Apache-2.0
#include "text/row_reader.h"

#include <zlib.h>

#include <catch2/catch.hpp>
#include <vector>

#include "tests/unit/text/tokenizer_files.h"
#include "text/dataset.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::text;

namespace {

using Rows = std::vector<std::string>;

Rows rows_of(const std::filesystem::path& path) {
  RowReader reader(path);
  Rows rows;
  while (const auto row = reader.next()) rows.emplace_back(*row);
  return rows;
}

std::string error_of(
    const std::string& content, const std::string& name = "d.jsonl") {
  const TemporaryFolder folder;
  try {
    rows_of(folder.write(name, content));
  } catch (const UserError& error) {
    return error.what();
  }
  return "read";
}

std::string gzipped(const std::string& text) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "g";
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("rows are handed on as they were written") {
  const TemporaryFolder folder;
  const std::string lines =
      "\xef\xbb\xbf{\"b\": 1.0, \"a\": 2}\n\n  \r\n{\"c\": \"]\\\"}\"}\r\n{}";
  const Rows expected = {
      "{\"b\": 1.0, \"a\": 2}", "{\"c\": \"]\\\"}\"}\r", "{}"};
  CHECK(rows_of(folder.write("d.jsonl", lines)) == expected);
  CHECK(rows_of(folder.write("d.gz", gzipped(lines))) == expected);
  // Far longer than a block.
  const std::string wide = "{\"a\": \"" + std::string(200000, 'x') + "\"}";
  CHECK(
      rows_of(folder.write("w.gz", gzipped(wide + "\n" + wide))) ==
      Rows{wide, wide});
  CHECK(rows_of(folder.write("e.jsonl", "\n")).empty());
}

TEST_CASE("an array holds rows too") {
  const TemporaryFolder folder;
  const auto path =
      folder.write("d.json", " [\n {\"a\": [1, {\"b\": \"],\"}]},\n{}, 3 ]\n");
  RowReader reader(path);
  CHECK(*reader.next() == "{\"a\": [1, {\"b\": \"],\"}]}");
  CHECK(reader.subject() == path.string() + ", item 1");
  CHECK(*reader.next() == "{}");
  CHECK(*reader.next() == "3");
  CHECK(reader.number() == 3);
  CHECK_FALSE(reader.next());
  CHECK(rows_of(folder.write("e.json", "[]")).empty());
  CHECK_THAT(error_of("[{}, {}"), Contains("has no end"));
  CHECK_THAT(error_of("[{}]\n[{}]"), Contains("more behind the first array"));
  CHECK_THAT(error_of("[{} {}]"), Contains("item 1: expected a comma"));
}

TEST_CASE("files of other kinds are named, with what to do") {
  CHECK_THAT(
      error_of("PAR1\x15", "a.parquet"),
      Contains("is a Parquet table") && Contains("read_parquet('"));
  CHECK_THAT(error_of("ARROW1\x01"), Contains("is an Arrow file"));
  CHECK_THAT(error_of("\xff\xff\xff\xff\x10"), Contains("is an Arrow stream"));
  CHECK_THAT(
      error_of("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
      Contains("git lfs pull"));
  CHECK_THAT(error_of("PK\x03\x04zz"), Contains("is a zip archive"));
  CHECK_THAT(error_of("%PDF-1.7\n"), Contains("is a PDF document"));
  CHECK_THAT(error_of("\x28\xb5\x2f\xfdx"), Contains("zstd -d"));
  CHECK_THAT(
      error_of("question,answer\na,b\n", "a.csv"),
      Contains("comma-separated") && Contains("read_csv('"));
  CHECK_THAT(error_of("q,a\n1,2\n"), Contains("comma-separated"));
  CHECK_THAT(error_of("q\ta\n1\t2\n"), Contains("sep='\\t'"));
  CHECK_THAT(error_of("Once upon\n", "a.txt"), Contains("is plain text"));
  CHECK_THAT(error_of("<!DOCTYPE html>\n"), Contains("is a web page"));
  CHECK_THAT(error_of("\xff\xfe{\0", "a"), Contains("is UTF-16"));
  CHECK_THAT(error_of(std::string("ab\0c", 4)), Contains("is no text"));
  CHECK_THAT(
      error_of("{\n  \"text\": \"a\"\n}\n"),
      Contains("d.jsonl:1") && Contains("goes over several"));
  std::string cut = gzipped(std::string(5000, 'a') + "{}");
  cut.resize(cut.size() - 10);
  CHECK_THAT(error_of(cut), Contains("gzip stream is damaged or ends early"));
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(
      RowReader(folder.path() / "none"), Contains("cannot be read"));
  CHECK_THROWS_WITH(RowReader(folder.path()), Contains("found a folder"));
}

TEST_CASE("data options name folders and patterns") {
  const TemporaryFolder folder;
  const auto names = [&](const std::string& option) {
    std::vector<std::pair<std::string, double>> found;
    for (const auto& file : parse_data_option(option)) {
      found.emplace_back(file.path.filename().string(), file.weight);
    }
    return found;
  };
  const std::string root = folder.path().string();
  CHECK_THROWS_WITH(
      parse_data_option(root), Contains("found none; name a file"));
  folder.write("notes.md", "x");
  CHECK_THROWS_WITH(parse_data_option(root), Contains("found 'notes.md'"));
  folder.write("b.jsonl", "12345678");
  folder.write("a.json", "1234");
  folder.write("c.jsonl.gz", "1234");
  folder.write(".hidden.jsonl", "1234");
  using Found = std::vector<std::pair<std::string, double>>;
  CHECK(
      names(root + ":2") ==
      Found{{"a.json", 0.5}, {"b.jsonl", 1.0}, {"c.jsonl.gz", 0.5}});
  CHECK(
      names(root + "/*.json*:3,x.jsonl") == Found{
                                                {"a.json", 0.75},
                                                {"b.jsonl", 1.5},
                                                {"c.jsonl.gz", 0.75},
                                                {"x.jsonl", 1.0}});
  CHECK_THROWS_WITH(
      parse_data_option(root + "/*.csv"), Contains("no file matches"));
}

TEST_CASE("names with commas and colons") {
  const TemporaryFolder folder;
  const std::string root = folder.path().string();
  const std::string comma = folder.write("a,b.jsonl", "{}");
  const std::string colon = folder.write("x:3", "{}");
  CHECK(parse_data_option(comma).at(0).path == comma);
  CHECK(parse_data_option(colon).at(0).weight == 1.0);
  const auto files =
      parse_data_option(root + "/a\\,b.jsonl:2," + colon + "," + colon + ":4");
  REQUIRE(files.size() == 3);
  CHECK(files[0].path == comma);
  CHECK(files[0].weight == 2.0);
  CHECK(files[1].path == colon);
  CHECK(files[1].weight == 1.0);
  CHECK(files[2].path == colon);
  CHECK(files[2].weight == 4.0);
  const auto none = parse_data_option("none\\:3");
  CHECK(none.at(0).path == "none:3");
  CHECK(none.at(0).weight == 1.0);
}
