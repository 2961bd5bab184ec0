// SPDX-License-Identifier: Apache-2.0
#include "cli/targets.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "../temporary_folder.h"
#include "core/error.h"

using Catch::Contains;
using fettle::TemporaryFolder;
using fettle::UsageError;
using fettle::UserError;
using namespace fettle::cli;
namespace fs = std::filesystem;

TEST_CASE("a new folder may be anywhere below a folder that is there") {
  const TemporaryFolder folder;
  CHECK_NOTHROW(check_new_folder({"--out", folder / "a"}));
  CHECK_NOTHROW(check_new_folder({"--out", folder / "a/b/c/"}));
  CHECK_NOTHROW(check_new_folder({"--out", "no-such-folder-here"}));
  CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("an empty name is a usage error that names the option") {
  CHECK_THROWS_AS(check_new_folder({"--out", ""}), UsageError);
  CHECK_THROWS_WITH(
      check_new_folder({"--out", ""}),
      Contains("--out") && Contains("is a shell variable unset?"));
  CHECK_THROWS_WITH(check_new_file({"--json", ""}), Contains("--json"));
}

TEST_CASE("a folder that exists, or a link of its name, is refused") {
  const TemporaryFolder folder;
  fs::create_symlink("nowhere", folder / "link");
  for (const std::string& path :
       {folder.path().string(),
        folder.path().string() + "/",
        (folder / "link").string(),
        std::string("/"),
        std::string(".")}) {
    CHECK_THROWS_WITH(
        check_new_folder({"--out", path}), Contains("exists already"));
  }
}

TEST_CASE("a place where nothing can be made is refused") {
  const TemporaryFolder folder;
  std::ofstream(folder / "file") << "x";
  CHECK_THROWS_WITH(
      check_new_folder({"--out", folder / "file/out"}),
      Contains("file is not a folder") && Contains("--out"));
  const std::string longest(255, 'n');
  CHECK_THROWS_WITH(
      check_new_folder({"--out", folder / longest}),
      Contains("too long a name"));
  // With .partial behind it, a name has 247 bytes at most.
  CHECK_NOTHROW(check_new_folder({"--out", folder / longest.substr(8)}));
  CHECK_THROWS_WITH(
      check_new_folder({"--out", folder / (longest + "n/out")}),
      Contains("too long a name"));
  CHECK_THROWS_AS(
      check_new_folder({"--out", folder / std::string(100000, 'n')}),
      UserError);
}

TEST_CASE("several new folders lie beside each other") {
  const TemporaryFolder folder;
  const std::string a = folder / "a";
  CHECK_NOTHROW(check_new_folders(
      {{"--out", a}, {"--merge", folder / "ab"}, {"--peft", ""}}));
  // The first is whole when the second is written into it.
  CHECK_NOTHROW(check_new_folders({{"--out", a}, {"--merge", a + "/m"}}));
  CHECK_THROWS_WITH(
      check_new_folders({{"--out", a}, {"--merge", a + "/"}}),
      Contains("--merge") && Contains("the same folder as --out"));
  CHECK_THROWS_WITH(
      check_new_folders({{"--out", a + "/o"}, {"--peft", a}}),
      Contains("--peft") && Contains("--out lies in it"));
}

TEST_CASE("a file may be replaced, and needs a folder") {
  const TemporaryFolder folder;
  std::ofstream(folder / "file") << "x";
  CHECK_NOTHROW(check_new_file({"--json", folder / "file"}));
  CHECK_NOTHROW(check_new_file({"--json", folder / "new"}));
  CHECK_NOTHROW(check_new_file({"--json", "/dev/null"}));
  CHECK_THROWS_WITH(
      check_new_file({"--json", folder.path().string()}),
      Contains("is a folder"));
  CHECK_THROWS_WITH(
      check_new_file({"--json", folder / "file/new"}),
      Contains("is not a folder"));
  CHECK_THROWS_WITH(
      check_new_file({"--json", folder / "none/new"}),
      Contains("there is no folder"));
}
