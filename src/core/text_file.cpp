// SPDX-License-Identifier: Apache-2.0
#include "core/text_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"

namespace fettle {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBlock = 1 << 20;

void check_readable(
    const fs::path& path, std::string_view stage, std::uint64_t most) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  if (type == fs::file_type::not_found) {
    throw UserError(
        stage, path.string(), "cannot be opened for reading: no such file");
  }
  if (type == fs::file_type::none) {
    throw UserError(
        stage,
        path.string(),
        "cannot be opened for reading: " + error.message());
  }
  if (type != fs::file_type::regular) {
    throw UserError(
        stage,
        path.string(),
        fmt::format("expected a file, found {}", kind_of_file(type)));
  }
  const std::uintmax_t size = fs::file_size(path, error);
  if (!error && size > most) {
    throw UserError(
        stage,
        path.string(),
        fmt::format(
            "is {} large, expected at most {}; no such file needs that",
            format_bytes(static_cast<std::int64_t>(size)),
            format_bytes(static_cast<std::int64_t>(most))));
  }
}

}  // namespace

std::string read_text_file(
    const fs::path& path, std::string_view stage, std::uint64_t most) {
  check_readable(path, stage, most);
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw UserError(stage, path.string(), "cannot be opened for reading");
  }
  std::error_code ignored;
  const std::uintmax_t size = fs::file_size(path, ignored);
  std::string text;
  // Some files report no size, or grow.
  for (std::size_t want = ignored ? kBlock : static_cast<std::size_t>(size) + 1;
       file && text.size() <= most;
       want = kBlock) {
    const std::size_t had = text.size();
    text.resize(had + want);
    file.read(text.data() + had, static_cast<std::streamsize>(want));
    text.resize(had + static_cast<std::size_t>(file.gcount()));
  }
  if (file.bad()) throw UserError(stage, path.string(), "cannot be read");
  return text;
}

std::string_view kind_of_file(fs::file_type type) {
  switch (type) {
    case fs::file_type::regular:
      return "a file";
    case fs::file_type::directory:
      return "a folder";
    case fs::file_type::fifo:
      return "a pipe";
    case fs::file_type::socket:
      return "a socket";
    case fs::file_type::block:
    case fs::file_type::character:
      return "a device";
    default:
      return "something else";
  }
}

std::string_view kind_of_content(std::string_view head) {
  using namespace std::string_view_literals;
  constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kKinds{
      {{"version https://git-lfs",
        "a Git LFS pointer, not the file itself; fetch it with git lfs pull"},
       {"GGUF", "a GGUF file"},
       {"PK\x03\x04"sv, "a zip archive, such as PyTorch's files are"},
       {"\x1f\x8b"sv, "compressed with gzip; unpack it"},
       {"\xff\xfe"sv, "text in UTF-16; save it as UTF-8"},
       {"\xfe\xff"sv, "text in UTF-16; save it as UTF-8"},
       {"<", "a web page; perhaps a download that needs a login"}}};
  const std::size_t begin = head.find_first_not_of(" \t\r\n");
  if (begin != std::string_view::npos) head.remove_prefix(begin);
  const auto* found = std::ranges::find_if(
      kKinds, [&](const auto& kind) { return head.starts_with(kind.first); });
  return found == kKinds.end() ? std::string_view() : found->second;
}

}  // namespace fettle
