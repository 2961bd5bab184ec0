// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_file.h"

#include <catch2/catch.hpp>

#include "core/error.h"

namespace fettle::exporter {
namespace {

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::string number(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) {
    text += static_cast<char>(value >> (8 * i) & 255);
  }
  return text;
}

std::string text(const std::string& value) {
  return number(value.size(), 8) + value;
}

TEST_CASE("A file is header, keys, tensors' places and aligned tensors") {
  const GgufKeys keys{
      {"a", std::uint32_t{7}},
      {"b", true},
      {"c", std::vector<std::string>{"x", "yz"}}};
  std::vector<std::byte> file;
  GgufWriter writer(
      std::make_unique<io::MemoryOutput>("test", file),
      keys,
      {{.name = "t", .sizes = {3, 2}, .type = 0, .bytes = 24},
       {.name = "u", .sizes = {1}, .type = 0, .bytes = 4}});
  REQUIRE(writer.total_bytes() == 28);
  writer.write("t", bytes_of("abcdefgh"));
  writer.write("t", bytes_of("ijklmnopqrstuvwx"));
  writer.write("u", bytes_of("1234"));
  writer.finish();

  std::string expected = "GGUF" + number(3, 4) + number(2, 8) + number(3, 8);
  expected += text("a") + number(4, 4) + number(7, 4);
  expected += text("b") + number(7, 4) + number(1, 1);
  expected += text("c") + number(9, 4) + number(8, 4) + number(2, 8) +
              text("x") + text("yz");
  expected += text("t") + number(2, 4) + number(3, 8) + number(2, 8) +
              number(0, 4) + number(0, 8);
  expected +=
      text("u") + number(1, 4) + number(1, 8) + number(0, 4) + number(32, 8);
  expected.resize((expected.size() + 31) / 32 * 32);
  expected += "abcdefghijklmnopqrstuvwx" + std::string(8, '\0') + "1234" +
              std::string(28, '\0');
  REQUIRE((file == bytes_of(expected)));

  const GgufHeader header = read_gguf(io::MemoryFile("test", file));
  REQUIRE((header.keys == keys));
  REQUIRE(header.tensors.size() == 2);
  REQUIRE(header.tensors[1].name == "u");
  REQUIRE(header.tensors[1].begin == 32);
  REQUIRE(header.tensors[0].sizes == std::vector<std::int64_t>{3, 2});
  REQUIRE(header.data_begin == expected.size() - 64);
}

TEST_CASE("All kinds of values are read back") {
  const GgufKeys keys{
      {"u32", std::uint32_t{4'000'000'000}},
      {"f32", 0.25F},
      {"bool", false},
      {"text", std::string("ä\n")},
      {"texts", std::vector<std::string>{}},
      {"ints", std::vector<std::int32_t>{-1, 5}},
      {"floats", std::vector<float>{-0.5F}}};
  std::vector<std::byte> file;
  GgufWriter writer(std::make_unique<io::MemoryOutput>("test", file), keys, {});
  writer.finish();
  REQUIRE(file.size() % 32 == 0);
  REQUIRE((read_gguf(io::MemoryFile("test", file)).keys == keys));
}

TEST_CASE("Tensors are written in order and whole") {
  std::vector<std::byte> file;
  GgufWriter writer(
      std::make_unique<io::MemoryOutput>("test", file),
      {},
      {{.name = "t", .sizes = {1}, .type = 0, .bytes = 4},
       {.name = "u", .sizes = {1}, .type = 0, .bytes = 4}});
  REQUIRE_THROWS_AS(writer.write("u", bytes_of("1234")), InternalError);
  REQUIRE_THROWS_AS(writer.write("t", bytes_of("12345")), InternalError);
  writer.write("t", bytes_of("1234"));
  REQUIRE_THROWS_AS(writer.finish(), InternalError);
}

TEST_CASE("Another file is none that was written here") {
  REQUIRE_THROWS_AS(
      read_gguf(io::MemoryFile("test", bytes_of("GGUX" + number(3, 4)))),
      InternalError);
}

}  // namespace
}  // namespace fettle::exporter
