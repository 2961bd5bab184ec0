// SPDX-License-Identifier: Apache-2.0
// Damaged files: whatever happens to the bytes, a file is read or refused.
#include <catch2/catch.hpp>

#include "core/error.h"
#include "core/rng.h"
#include "fixtures.h"
#include "io/safetensors.h"

using namespace fettle::io;

namespace {

std::string valid_file() {
  std::vector<std::byte> bytes;
  std::vector<TensorSpec> specs;
  for (int i = 0; i < 6; ++i) {
    specs.push_back(
        {"model.layers." + std::to_string(i) + ".weight",
         i % 2 == 0 ? DType::kBF16 : DType::kF32,
         {i, 3}});
  }
  SafetensorsWriter writer(std::make_unique<MemoryOutput>("f", bytes), specs);
  for (const TensorSpec& spec : specs) {
    writer.write(spec.name, std::vector<std::byte>(spec.bytes()));
  }
  writer.finish();
  const auto* begin = reinterpret_cast<const char*>(bytes.data());
  return {begin, begin + bytes.size()};
}

// One to four of: a byte changed, a bit flipped, a digit changed, a piece cut
// out, the end cut off, a piece doubled.
std::string damaged(std::string text, fettle::Rng& rng) {
  for (std::uint64_t left = 1 + rng.below(4); left > 0; --left) {
    if (text.empty()) return text;
    const std::size_t at = rng.below(text.size());
    const std::size_t length = 1 + rng.below(16);
    switch (rng.below(6)) {
      case 0:
        text[at] = static_cast<char>(rng.below(256));
        break;
      case 1:
        text[at] = static_cast<char>(text[at] ^ (1 << rng.below(8)));
        break;
      case 2: {
        const std::size_t digit = text.find_first_of("0123456789", at);
        if (digit != std::string::npos) {
          text[digit] = static_cast<char>('0' + rng.below(10));
        }
        break;
      }
      case 3:
        text.erase(at, length);
        break;
      case 4:
        text.resize(at);
        break;
      default:
        text.insert(at, text.substr(at, length));
    }
  }
  return text;
}

// Everything a reader may rely on once a file has parsed.
void check_promises(const SafetensorsFile& file, std::uint64_t size) {
  std::uint64_t reached = file.data_begin();
  for (const TensorInfo& info : file.tensors()) {
    REQUIRE(info.begin == reached);
    REQUIRE(info.end <= size);
    const TensorSpec spec{info.name, info.dtype, info.shape};
    REQUIRE(spec.bytes() == info.bytes());
    REQUIRE(file.find(info.name) == &info);
    reached = info.end;
  }
  REQUIRE(reached == size);
}

}  // namespace

TEST_CASE("20,000 damaged files are each read or refused, nothing else") {
  const std::string valid = valid_file();
  fettle::Rng rng(20260101);
  int read = 0;
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string text = damaged(valid, rng);
    try {
      check_promises(
          SafetensorsFile::parse(MemoryFile("f", to_bytes(text))), text.size());
      ++read;
    } catch (const fettle::UserError&) {
      ++refused;
    }
  }
  // Damage to the data or to a name leaves a file that reads; most does not.
  CHECK(read > 500);
  CHECK(refused > 10000);
}
