// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors.h"

#include <catch2/catch.hpp>
#include <chrono>

#include "core/error.h"
#include "fixtures.h"

using Catch::Contains;
using fettle::UserError;
using namespace fettle::io;

namespace {

SafetensorsFile parse_text(const std::string& text) {
  return SafetensorsFile::parse(MemoryFile("f.safetensors", to_bytes(text)));
}

SafetensorsFile parse(const std::string& header, std::size_t data_bytes) {
  return parse_text(safetensors_text(header, data_bytes));
}

// A header whose one tensor has this entry.
std::string one(const std::string& entry) { return R"({"a":)" + entry + "}"; }

const std::string kTwo =
    R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},)"
    R"("a":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]},)"
    R"("__metadata__":{"format":"pt"}})";

}  // namespace

TEST_CASE("a header gives each tensor's type, shape and absolute span") {
  const SafetensorsFile file = parse(kTwo + "   ", 12);
  const std::uint64_t begin = 8 + kTwo.size() + 3;
  CHECK(file.data_begin() == begin);
  REQUIRE(file.tensors().size() == 2);
  const TensorInfo* a = file.find("a");
  REQUIRE(a != nullptr);
  CHECK(a == &file.tensors()[0]);
  CHECK(a->dtype == DType::kBF16);
  CHECK(a->shape == std::vector<std::int64_t>{1, 2});
  CHECK(a->begin == begin);
  CHECK(a->end == begin + 4);
  CHECK(file.find("b")->bytes() == 8);
  CHECK(file.find("c") == nullptr);
  CHECK(file.metadata() == Metadata{{"format", "pt"}});
}

TEST_CASE("scalars, empty tensors and empty files are whole files") {
  const SafetensorsFile file = parse(
      R"({"s":{"dtype":"F64","shape":[],"data_offsets":[0,8]},)"
      R"("e":{"dtype":"I8","shape":[0,7],"data_offsets":[8,8]},)"
      R"("z":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}})",
      8);
  CHECK(file.find("s")->shape.empty());
  CHECK(file.find("e")->bytes() == 0);
  CHECK(file.find("z")->bytes() == 0);
  CHECK(parse("{}", 0).tensors().empty());
}

TEST_CASE("every type is read by its name and written by it") {
  for (const char* name :
       {"BOOL",
        "U8",
        "I8",
        "U16",
        "I16",
        "U32",
        "I32",
        "U64",
        "I64",
        "F8_E4M3",
        "F8_E5M2",
        "F8_E8M0",
        "F16",
        "BF16",
        "F32",
        "F64",
        "C64"}) {
    const auto dtype = find_dtype(name);
    REQUIRE(dtype.has_value());
    CHECK(name_of(*dtype) == name);
    const std::size_t bytes = size_of(*dtype);
    const std::string entry = std::string(R"({"dtype":")") + name +
                              R"(","shape":[1],"data_offsets":[0,)" +
                              std::to_string(bytes) + "]}";
    CHECK(parse(one(entry), bytes).find("a")->dtype == *dtype);
  }
  CHECK(size_of(DType::kBF16) == 2);
  CHECK(size_of(DType::kF8E4M3) == 1);
  CHECK(size_of(DType::kI64) == 8);
  CHECK_FALSE(find_dtype("F4").has_value());
  CHECK_THROWS_AS(size_of(static_cast<DType>(99)), fettle::InternalError);
}

TEST_CASE("header lengths that the file can't hold are refused unread") {
  CHECK_THROWS_WITH(parse_text(""), Contains("incomplete download"));
  CHECK_THROWS_WITH(parse_text("1234567"), Contains("found 7"));
  CHECK_THROWS_WITH(
      parse_text(length_field(1ULL << 63) + "{}"),
      Contains("header length is 9223372036854775808 bytes"));
  CHECK_THROWS_WITH(
      parse_text(length_field(UINT64_MAX) + "{}"), Contains("at most"));
  CHECK_THROWS_WITH(
      parse_text(length_field(kMaxSafetensorsHeader) + "{}"),
      Contains("but only 2 follow. Perhaps an incomplete download?"));
  CHECK_THROWS_AS(parse_text(length_field(0)), UserError);
}

TEST_CASE("a file cut anywhere is refused") {
  const std::string whole = safetensors_text(kTwo, 12);
  CHECK_NOTHROW(parse_text(whole));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CHECK_THROWS_WITH(
        parse_text(whole.substr(0, size)),
        Contains("Perhaps an incomplete download?"));
  }
}

TEST_CASE("spans must cover the data without hole or overlap") {
  const auto header = [](const char* a, const char* b) {
    return std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)") +
           a + R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  CHECK_NOTHROW(parse(header("[0,4]", "[4,8]"), 8));
  CHECK_NOTHROW(parse(header("[4,8]", "[0,4]"), 8));
  CHECK_THROWS_WITH(
      parse(header("[0,4]", "[3,7]"), 7), Contains("they overlap"));
  CHECK_THROWS_WITH(
      parse(header("[0,4]", "[0,4]"), 4), Contains("they overlap"));
  CHECK_THROWS_WITH(parse(header("[0,4]", "[5,9]"), 9), Contains("a hole"));
  CHECK_THROWS_WITH(parse(header("[1,5]", "[5,9]"), 9), Contains("a hole"));
  CHECK_THROWS_WITH(
      parse(header("[0,4]", "[4,8]"), 7), Contains("incomplete download"));
  CHECK_THROWS_WITH(
      parse(header("[0,4]", "[4,8]"), 9),
      Contains("1 bytes follow the last tensor"));
}

TEST_CASE("entries that contradict themselves name their tensor") {
  const auto refused = [](const std::string& entry, const std::string& why) {
    CHECK_THROWS_WITH(
        parse(one(entry), 4), Contains("tensor 'a'") && Contains(why));
  };
  const std::string u8 = R"({"dtype":"U8","shape":)";
  refused(u8 + R"([3],"data_offsets":[0,4]})", "dtype and shape need 3");
  refused(u8 + R"([4],"data_offsets":[4,0]})", "ends before it begins");
  refused(u8 + R"([4],"data_offsets":[0,4,8]})", "must have 2 entries");
  refused(u8 + R"([4],"data_offsets":[0,4.0]})", "non-negative integers");
  refused(u8 + R"([4],"data_offsets":[-1,3]})", "found -1");
  refused(u8 + R"([4],"data_offsets":[0,18446744073709551615]})", "integers");
  refused(u8 + R"([4],"data_offsets":"0,4"})", "must be a list");
  refused(u8 + R"([4]})", "'data_offsets' is missing");
  refused(u8 + R"([-4],"data_offsets":[0,4]})", "found -4");
  refused(u8 + R"(["4"],"data_offsets":[0,4]})", "found \"4\"");
  refused(u8 + R"(4,"data_offsets":[0,4]})", "must be a list");
  const std::string big = R"([4294967296,4294967296],"data_offsets":[0,4]})";
  refused(u8 + big, "more bytes than any file");
  refused(
      R"({"dtype":"I64","shape":[2305843009213693952],"data_offsets":[0,0]})",
      "more bytes than any file");
  refused(
      u8 + R"([4294967296,4294967296,0],"data_offsets":[0,0]})",
      "more bytes than any file");
  refused(
      R"({"dtype":"F4","shape":[8],"data_offsets":[0,4]})",
      "is F4, which Fettle cannot read");
  refused(R"({"dtype":7,"shape":[4],"data_offsets":[0,4]})", "a string");
  refused(R"([4])", "expected a JSON object");
}

TEST_CASE("headers that are not honest JSON are refused") {
  const std::string entry =
      R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  CHECK_THROWS_WITH(
      parse(R"({"a":)" + entry + R"(,"a":)" + entry + "}", 1),
      Contains("duplicate JSON key 'a'"));
  const std::string deep = std::string(10000, '[') + std::string(10000, ']');
  CHECK_THROWS_WITH(parse(one(deep), 0), Contains("nested deeper"));
  CHECK_THROWS_WITH(parse("[1]", 0), Contains("no JSON object"));
  CHECK_THROWS_WITH(parse("{", 0), Contains("not valid JSON"));
  CHECK_THROWS_AS(parse("{\"\xff\":1}", 0), UserError);
  CHECK_THROWS_WITH(
      parse(R"({"__metadata__":{"n":1}})", 0),
      Contains("'n' must be a string"));
  CHECK_THROWS_WITH(
      parse(R"({"__metadata__":"pt"})", 0), Contains("JSON object"));
}

TEST_CASE("metadata that is null is none") {
  const SafetensorsFile file = parse(R"({"__metadata__":null})", 0);
  CHECK(file.metadata().empty());
  CHECK(file.tensors().empty());
}

TEST_CASE("other files in the place of weights are named") {
  CHECK_THROWS_WITH(
      parse_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
      Contains("found a Git LFS pointer"));
  CHECK_THROWS_WITH(
      parse_text("<!DOCTYPE html><html></html>"), Contains("a web page"));
}

TEST_CASE("a header of very many tensors is read in linear time") {
  // A square of it would take minutes.
  constexpr std::size_t kTensors = 60'000;
  std::string header = "{";
  for (std::size_t i = 0; i < kTensors; ++i) {
    header += (i > 0 ? "," : "") + std::string("\"t") + std::to_string(i) +
              R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" +
              std::to_string(i) + "," + std::to_string(i + 1) + "]}";
  }
  const auto start = std::chrono::steady_clock::now();
  const SafetensorsFile file = parse(header + "}", kTensors);
  const std::chrono::duration<double> taken =
      std::chrono::steady_clock::now() - start;
  CHECK(file.tensors().size() == kTensors);
  CHECK(file.find("t59999")->begin == file.data_begin() + 59'999);
  CHECK(taken.count() < 20.0);
}
