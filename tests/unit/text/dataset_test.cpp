// SPDX-License-Identifier: Apache-2.0
#include "text/dataset.h"

#include <catch2/catch.hpp>

#include "tests/unit/text/tokenizer_files.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::text;
using Ids = std::vector<std::int32_t>;

namespace {

constexpr std::int32_t kNo = kMasked;

SampleOptions with_limit(std::int64_t limit) {
  SampleOptions options;
  options.vocab_limit = limit;
  return options;
}

// A tokenizer that puts <s> before every text.
Tokenizer tokenizer_with_start() {
  Json file = letters_file();
  file["post_processor"] = Json::parse(
      R"({"type": "TemplateProcessing",
          "single": [{"SpecialToken": {"id": "<s>"}},
                     {"Sequence": {"id": "A"}}],
          "special_tokens": {"<s>": {"ids": [10]}}})");
  return make_tokenizer(file);
}

std::string error_of(
    const std::string& content, SampleOptions options = with_limit(12)) {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = make_tokenizer(letters_file());
  const auto path = folder.write("d.jsonl", content);
  try {
    read_samples(path, tokenizer, options);
  } catch (const UserError& error) {
    return error.what();
  }
  return "read";
}

}  // namespace

TEST_CASE("the forms of a data file") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = tokenizer_with_start();
  const auto path = folder.write(
      "d.jsonl",
      "{\"text\": \"abc\", \"source\": \"x\"}\n"
      "\n  \r\n"
      "{\"prompt\": \"ab\", \"completion\": \"c\"}\r\n"
      "{\"prompt\": \"a\", \"completion\": \"b<s>\"}\n"
      "{\"input_ids\": [1, 2, 3], \"labels\": [-100, 2, 3]}\n"
      "{\"input_ids\": [], \"labels\": null}");
  SampleOptions options = with_limit(12);
  options.eos_id = 10;
  JsonlReader reader(path, tokenizer, options);

  auto sample = reader.next();
  CHECK(sample->ids == Ids{10, 7});
  CHECK(sample->labels == sample->ids);
  CHECK(reader.line() == 1);
  // Encoded apart: "ab" and "c" don't merge to "abc".
  sample = reader.next();
  CHECK(sample->ids == Ids{10, 6, 2, 10});
  CHECK(sample->labels == Ids{kNo, kNo, 2, 10});
  CHECK(reader.line() == 4);
  // The end is not added twice.
  sample = reader.next();
  CHECK(sample->ids == Ids{10, 0, 1, 10});
  CHECK(sample->labels == Ids{kNo, kNo, 1, 10});
  sample = reader.next();
  CHECK(sample->ids == Ids{1, 2, 3});
  CHECK(sample->labels == Ids{kNo, 2, 3});
  CHECK(reader.next()->ids.empty());
  CHECK_FALSE(reader.next().has_value());
  CHECK_FALSE(reader.next().has_value());
}

TEST_CASE("what a post-processor puts at the end follows the completion") {
  Json file = letters_file();
  file["post_processor"] = {
      {"type", "BertProcessing"}, {"cls", {"d", 3}}, {"sep", {"e", 4}}};
  const TemporaryFolder folder;
  const auto path =
      folder.write("d.jsonl", R"({"prompt": "a", "completion": "b"})");
  const auto samples = read_samples(path, make_tokenizer(file), with_limit(12));
  CHECK(samples.at(0).ids == Ids{3, 0, 1, 4});
  CHECK(samples.at(0).labels == Ids{kNo, kNo, 1, 4});
}

TEST_CASE("a text ends in the end token where that is asked for") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = make_tokenizer(letters_file());
  const auto path =
      folder.write("d.jsonl", "{\"text\": \"abc\"}\n{\"text\": \"a<s>\"}");
  SampleOptions options = with_limit(12);
  options.eos_id = 10;
  CHECK(read_samples(path, tokenizer, options).at(0).ids == Ids{7});
  options.end_text = true;
  const auto samples = read_samples(path, tokenizer, options);
  CHECK(samples.at(0).ids == Ids{7, 10});
  CHECK(samples.at(0).labels == Ids{7, 10});
  CHECK(samples.at(1).ids == Ids{0, 10});
}

TEST_CASE("other forms are read by name, arrays and answers as one piece") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = make_tokenizer(letters_file());
  SampleOptions options = with_limit(12);
  options.form = {NamedForm::kOwn, parse_columns("prompt=q,completion=a")};
  const auto path = folder.write(
      "d.json",
      R"([{"q": "ab", "a": "c"}, {"text": "de"},)"
      R"( {"input_ids": [1, 2], "labels": [-100, 2]}, {"input_ids": [1]}])");
  const auto samples = read_samples(path, tokenizer, options);
  REQUIRE(samples.size() == 4);
  CHECK(samples[0].ids == Ids{6, 2});
  CHECK(samples[0].labels == Ids{kNo, 2});
  CHECK(samples[1].ids == Ids{8});
  CHECK(samples[0].whole);
  CHECK_FALSE(samples[1].whole);
  CHECK(samples[2].whole);
  CHECK_FALSE(samples[3].whole);
}

TEST_CASE("lines that are no samples are named") {
  CHECK(error_of("{\"text\": \"a\"}\n") == "read");
  CHECK(error_of("{\"text\": \"a\", \"score\": NaN}\n") == "read");
  CHECK_THAT(
      error_of("{\"text\": \"a\"}\n\nnonsense\n"),
      Contains("d.jsonl:3") && Contains("not valid JSON"));
  CHECK_THAT(error_of("[1]"), Contains("expected a JSON object"));
  CHECK_THAT(error_of("{\"txt\": \"a\"}"), Contains("exactly one form"));
  CHECK_THAT(error_of("{\"prompt\": \"a\"}"), Contains("exactly one form"));
  CHECK_THAT(
      error_of("{\"text\": \"a\", \"input_ids\": [1]}"),
      Contains("exactly one form"));
  CHECK_THAT(error_of("{\"text\": 1}"), Contains("'text' must be a string"));
  CHECK_THAT(error_of(""), Contains("holds no samples"));
  CHECK_THAT(error_of("\n \n"), Contains("holds no samples"));
  CHECK_THAT(
      error_of("{\"messages\": []}"), Contains("must be a list, not empty"));
  CHECK_THAT(error_of("{\"messages\": \"[]\"}"), Contains("fromjson"));
  CHECK_THAT(
      error_of("{\"question\": \"a\", \"answer\": \"b\"}"),
      Contains("--columns prompt=question,completion=answer"));
  CHECK_THAT(
      error_of("{\"messages\": [{\"content\": \"a\"}]}"),
      Contains("'role' is missing"));
  CHECK_THAT(error_of("{\"text\": \"\xff\"}"), Contains("d.jsonl:1"));
}

TEST_CASE("keys that would have no effect are refused by name") {
  const auto text = [](const std::string& more) {
    return error_of("{\"text\": \"a\", " + more + "}");
  };
  const auto prompt = [](const std::string& more) {
    return error_of("{\"prompt\": \"a\", \"completion\": \"b\", " + more + "}");
  };
  CHECK_THAT(
      text("\"weight\": 0.5"),
      Contains("'weight' is not supported") && Contains("data.jsonl:2"));
  CHECK_THAT(
      prompt("\"loss_mask\": [1]"), Contains("'loss_mask' is not supported"));
  CHECK_THAT(
      prompt("\"tools\": [{\"a\": 1}]"), Contains("'tools' has no effect"));
  CHECK_THAT(
      prompt("\"system\": \"Be kind.\""), Contains("'system' has no effect"));
  // Notes of the owner.
  CHECK(
      text("\"weight\": 1, \"labels\": \"good\", \"tools\": [1], \"id\": 7") ==
      "read");
  CHECK(
      prompt("\"weight\": null, \"tools\": [], \"system\": \"\", \"id\": 7") ==
      "read");
}

TEST_CASE("ids and labels are checked") {
  const auto ids = [](const std::string& list) {
    return error_of("{\"input_ids\": " + list + "}");
  };
  CHECK(ids("[0, 11]") == "read");
  CHECK_THAT(ids("[12]"), Contains("token id 12 is outside"));
  CHECK_THAT(ids("[-1]"), Contains("token id -1 is outside"));
  CHECK_THAT(ids("[1.5]"), Contains("must be a list of token ids"));
  CHECK_THAT(ids("[4294967297]"), Contains("must be a list of token ids"));
  CHECK_THAT(
      ids("[18446744073709551615]"), Contains("must be a list of token ids"));
  CHECK_THAT(ids("3"), Contains("must be a list of integers"));
  CHECK_THAT(
      ids("[1, 2], \"labels\": [1]"),
      Contains("has 1 entries, but 'input_ids' has 2"));
  CHECK_THAT(ids("[1], \"labels\": [12]"), Contains("label 12 is outside"));
  CHECK_THAT(ids("[1], \"labels\": [-1]"), Contains("label -1 is outside"));
  // A tokenizer with more tokens than the model has rows.
  CHECK_THAT(
      error_of("{\"text\": \"abc\"}", with_limit(7)),
      Contains("token id 7 is outside of the model's vocabulary of 7"));
}

TEST_CASE("data options name files and weights") {
  const auto files = parse_data_option("a.jsonl:2,b:c.jsonl,d.jsonl:0.5");
  REQUIRE(files.size() == 3);
  CHECK(files[0].path == "a.jsonl");
  CHECK(files[0].weight == 2.0);
  CHECK(files[1].path == "b:c.jsonl");
  CHECK(files[1].weight == 1.0);
  CHECK(files[2].weight == 0.5);
  for (const char* text :
       {"", "a,", ":2", "a:0", "a:-1", "a:nan", "a:inf", "a,,b"}) {
    CHECK_THROWS_AS(parse_data_option(text), UsageError);
  }
}

TEST_CASE("windows follow each other and drop a single token") {
  const Sample sample{{1, 2, 3, 4, 5}, {kNo, 2, 3, 4, 5}};
  const auto two = windows(sample, 2);
  REQUIRE(two.size() == 2);
  CHECK(two[0].ids == Ids{1, 2});
  CHECK(two[0].labels == Ids{kNo, 2});
  CHECK(two[1].ids == Ids{3, 4});
  const auto three = windows(sample, 3);
  REQUIRE(three.size() == 2);
  CHECK(three[1].labels == Ids{4, 5});
  CHECK(windows(sample, 9).size() == 1);
  CHECK(windows({{1}, {1}}, 4).empty());
  CHECK(windows({}, 4).empty());
  CHECK_THROWS_WITH(windows(sample, 1), Contains("must be at least 2"));
}
