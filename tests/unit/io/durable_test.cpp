// SPDX-License-Identifier: Apache-2.0
#include "io/durable.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "fixtures.h"

using Catch::Contains;
using fettle::UserError;
using namespace fettle::io;
namespace fs = std::filesystem;

TEST_CASE("a folder is made whole or not at all, in the place of another") {
  const TemporaryFolder folder;
  const fs::path path = folder / "made";
  fs::create_directory(unfinished(path));  // of a killed run
  write_text(unfinished(path) / "old", "text");
  make_folder(path, [&](const fs::path& made) {
    CHECK_FALSE(fs::exists(path));
    write_text(made / "f", "1");
  });
  CHECK_FALSE(fs::exists(path / "old"));
  CHECK_THROWS_AS(
      make_folder(
          path,
          [](const fs::path& made) {
            write_text(made / "f", "2");
            throw UserError("a", "b", "c");
          }),
      UserError);
  CHECK(read_text(path / "f") == "1");
  make_folder(path, [](const fs::path& made) { write_text(made / "f", "3"); });
  CHECK(read_text(path / "f") == "3");
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == 1);
  CHECK_THROWS_WITH(
      make_folder(folder / "no/made", [](const fs::path&) {}),
      Contains("cannot be changed"));
}

TEST_CASE("a tree goes, and what links in it lead to stays") {
  const TemporaryFolder folder;
  fs::create_directories(folder / "tree/deep");
  write_text(folder / "tree/deep/f", "text");
  write_text(folder / "kept", "text");
  fs::create_symlink(folder / "kept", folder / "tree/link");
  fs::create_symlink(folder / "tree", folder / "link");
  remove_tree(folder / "link");
  CHECK(fs::exists(folder / "tree/deep/f"));
  remove_tree(folder / "tree");
  remove_tree(folder / "tree");
  CHECK(read_text(folder / "kept") == "text");
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == 1);
}

TEST_CASE("a copy can be written, whatever the original's mode") {
  const TemporaryFolder folder;
  const std::string text(3'000'000, 'x');
  write_text(folder / "from", text);
  write_text(folder / "empty", "");
  fs::permissions(folder / "from", fs::perms::owner_read);
  for (int time = 0; time < 2; ++time) {
    copy_contents(folder / "from", folder / "to");
    CHECK(read_text(folder / "to") == text);
    const auto mode = fs::status(folder / "to").permissions();
    CHECK((mode & fs::perms::owner_write) != fs::perms::none);
    fs::permissions(folder / "to", fs::perms::owner_read);
  }
  copy_contents(folder / "empty", folder / "to");
  CHECK(read_text(folder / "to").empty());
  link_or_copy(folder / "from", folder / "to");
  CHECK(read_text(folder / "to") == text);
  CHECK_THROWS_AS(copy_contents(folder / "no", folder / "to"), UserError);
}

TEST_CASE("a file is replaced at once") {
  const TemporaryFolder folder;
  replace_file(folder / "f", "1");
  const auto before = fs::hard_link_count(folder / "f");
  fs::create_hard_link(folder / "f", folder / "same");
  replace_file(folder / "f", "2");
  CHECK(before == 1);
  CHECK(read_text(folder / "f") == "2");
  CHECK(read_text(folder / "same") == "1");
}
