// SPDX-License-Identifier: Apache-2.0
#include "core/text_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "core/error.h"
#include "core/json.h"

using Catch::Contains;
using fettle::read_text_file;
using fettle::UserError;
namespace fs = std::filesystem;

TEST_CASE("only files of a fit size are read, others are refused at once") {
  std::string name = (fs::temp_directory_path() / "fettle-XXXXXX").string();
  const fs::path folder = ::mkdtemp(name.data());
  std::ofstream(folder / "f") << std::string(2'000'000, 'x');
  CHECK(read_text_file(folder / "f", "s").size() == 2'000'000);
  CHECK_THROWS_WITH(
      read_text_file(folder / "f", "s", 1'999'999),
      Contains("expected at most"));
  fs::resize_file(folder / "f", std::uintmax_t{1} << 40);  // a hole
  CHECK_THROWS_WITH(
      read_text_file(folder / "f", "s"), Contains("is 1.00 TiB large"));
  std::ofstream(folder / "empty");
  CHECK(read_text_file(folder / "empty", "s").empty());
  fs::create_symlink(folder / "empty", folder / "link");
  CHECK(read_text_file(folder / "link", "s").empty());

  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(
      read_text_file(folder / "pipe", "s"),
      Contains("pipe: expected a file, found a pipe"));
  CHECK_THROWS_WITH(
      fettle::read_json("/dev/zero", "s"),
      Contains("/dev/zero: expected a file, found a device"));
  CHECK_THROWS_WITH(
      fettle::read_json(folder, "s"),
      Contains("expected a file, found a folder"));
  CHECK_THROWS_WITH(
      read_text_file(folder / "none", "s"), Contains("no such file"));
  // Such files tell no size.
  CHECK(!read_text_file("/proc/self/status", "s").empty());
  fs::remove_all(folder);
}

TEST_CASE("content that is often there by mistake is known") {
  CHECK_THAT(
      std::string(
          fettle::kind_of_content("version https://git-lfs.github.com")),
      Contains("git lfs pull"));
  CHECK(fettle::kind_of_content("GGUF\x03") == "a GGUF file");
  CHECK(!fettle::kind_of_content("\n <html>").empty());
  CHECK(fettle::kind_of_content("{\"a\": 1}").empty());
  CHECK(fettle::kind_of_content("").empty());
}
