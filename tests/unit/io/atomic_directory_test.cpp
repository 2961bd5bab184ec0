// SPDX-License-Identifier: Apache-2.0
#include "io/atomic_directory.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>

#include "core/error.h"
#include "fixtures.h"

using Catch::Contains;
using fettle::UserError;
using namespace fettle::io;
namespace fs = std::filesystem;

namespace {

std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

std::string worth_keeping(const fs::path& folder) {
  return fs::exists(folder / "layer-0") ? "a layer" : "";
}

}  // namespace

TEST_CASE("a folder appears at commit, with what was written and no more") {
  const TemporaryFolder folder;
  const fs::path out = folder / "deep/out/";
  AtomicDirectory directory(out);
  CHECK(directory.path() == folder / "deep/out.partial");
  CHECK(directory.out() == folder / "deep/out");
  fs::create_directory(directory.path() / "sub");
  write_text(directory.path() / "sub/f", "text");
  CHECK_FALSE(fs::exists(folder / "deep/out"));
  directory.commit();
  CHECK(read_text(out / "sub/f") == "text");
  CHECK(entries(out) == 1);
  CHECK(entries(folder / "deep") == 1);
  CHECK_THROWS_AS(directory.commit(), fettle::InternalError);
}

TEST_CASE("an output that exists is refused before and after the work") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "out");
  CHECK_THROWS_WITH(
      AtomicDirectory(folder / "out"),
      Contains("exists already; choose another folder or remove it"));
  CHECK_FALSE(fs::exists(folder / "out.partial"));
  fs::create_symlink("nowhere", folder / "link");
  CHECK_THROWS_WITH(
      AtomicDirectory(folder / "link"), Contains("exists already"));

  AtomicDirectory late(folder / "late");
  write_text(late.path() / "f", "text");
  fs::create_directory(folder / "late");
  CHECK_THROWS_WITH(late.commit(), Contains("exists already"));
  CHECK(entries(folder / "late") == 0);
  CHECK(read_text(late.path() / "f") == "text");
  fs::remove(folder / "late");
  late.commit();
  CHECK(read_text(folder / "late/f") == "text");
}

TEST_CASE("two runs on one folder: the second is refused, the first lives") {
  const TemporaryFolder folder;
  AtomicDirectory first(folder / "out");
  write_text(first.path() / "f", "first");
  CHECK_THROWS_WITH(
      AtomicDirectory(folder / "out"), Contains("another run is writing here"));
  first.commit();
  CHECK(read_text(folder / "out/f") == "first");
}

TEST_CASE("a killed run's files are kept to resume from, or cleared") {
  const TemporaryFolder folder;
  const fs::path out = folder / "out";
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const AtomicDirectory directory(out);
    write_text(directory.path() / "layer-0", "whole");
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK_FALSE(fs::exists(out));
  // What can't be gone on with goes when the next run fails.
  const AtomicDirectoryOptions resume{.resume = true, .left = worth_keeping};
  {
    const AtomicDirectory resumed(out, resume);
    CHECK(resumed.resumed());
    CHECK(read_text(resumed.path() / "layer-0") == "whole");
  }
  CHECK(fs::exists(folder / "out.partial/layer-0"));
  CHECK_THROWS_WITH(
      AtomicDirectory(
          out, {.left = worth_keeping, .advice = "do something else"}),
      Contains("out.partial: holds a layer; do something else"));
  CHECK(read_text(folder / "out.partial/layer-0") == "whole");
  {
    const AtomicDirectory again(out, {.restart = true, .left = worth_keeping});
    CHECK_FALSE(again.resumed());
    CHECK_FALSE(fs::exists(again.path() / "layer-0"));
  }
  CHECK_FALSE(fs::exists(folder / "out.partial"));
  AtomicDirectory fresh(out, resume);
  CHECK_FALSE(fresh.resumed());
}

TEST_CASE("unfinished work stays only where a run can go on from it") {
  const TemporaryFolder folder;
  {
    const AtomicDirectory kept(folder / "kept", {.left = worth_keeping});
    write_text(kept.path() / "layer-0", "text");
  }
  CHECK(fs::exists(folder / "kept.partial/layer-0"));
  {
    const AtomicDirectory dropped(folder / "out", {.left = worth_keeping});
    fs::create_directory(dropped.path() / "f");
    write_text(dropped.path() / "f/f", "text");
  }
  CHECK_FALSE(fs::exists(folder / "out.partial"));
  {
    AtomicDirectory hopeless(folder / "out", {.left = worth_keeping});
    write_text(hopeless.path() / "layer-0", "text");
    hopeless.abandon();
  }
  CHECK_FALSE(fs::exists(folder / "out.partial"));
}

TEST_CASE("what is left out is there until the folder is whole") {
  const TemporaryFolder folder;
  AtomicDirectory directory(folder / "out");
  write_text(directory.path() / "result", "text");
  fs::create_directory(directory.path() / "state-1");
  write_text(directory.path() / "state-1/f", "text");
  directory.leave_out("state-");
  fs::create_directory(folder / "out");
  CHECK_THROWS_WITH(directory.commit(), Contains("exists already"));
  CHECK(read_text(directory.path() / "state-1/f") == "text");
  fs::remove(folder / "out");
  directory.commit();
  CHECK(entries(folder / "out") == 1);
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("a commit that was killed is undone, or its remains go") {
  const TemporaryFolder folder;
  const fs::path partial = folder / "out.partial";
  const fs::path whole = partial / ".fettle-whole";
  fs::create_directories(whole);
  write_text(partial / ".fettle-lock", "");
  write_text(whole / "layer-0", "text");
  write_text(partial / ".fettle-new-f", "half");
  SECTION("before the folder had its name") {
    const AtomicDirectory directory(folder / "out", {.resume = true});
    CHECK(read_text(directory.path() / "layer-0") == "text");
    CHECK(entries(directory.path()) == 2);
  }
  SECTION("after it") {
    struct stat found {};
    REQUIRE(::stat(whole.c_str(), &found) == 0);
    write_text(
        partial / ".fettle-lock",
        std::to_string(found.st_dev) + ":" + std::to_string(found.st_ino) +
            "\n");
    fs::rename(whole, folder / "out");
    CHECK_THROWS_WITH(
        AtomicDirectory(folder / "out"), Contains("exists already"));
    CHECK_FALSE(fs::exists(partial));
    CHECK(read_text(folder / "out/layer-0") == "text");
  }
  SECTION("not where the folder is another") {
    fs::create_directory(folder / "out");
    CHECK_THROWS_AS(AtomicDirectory(folder / "out"), UserError);
    CHECK(read_text(whole / "layer-0") == "text");
  }
}

TEST_CASE("folders that Fettle did not make are left alone") {
  const TemporaryFolder folder;
  const fs::path partial = folder / "out.partial";
  const AtomicDirectoryOptions options{
      .resume = GENERATE(false, true), .restart = false};
  SECTION("files of somebody else") {
    fs::create_directory(partial);
    write_text(partial / "letter", "text");
    CHECK_THROWS_WITH(
        AtomicDirectory(folder / "out", options),
        Contains("no mark that Fettle made it"));
    CHECK(read_text(partial / "letter") == "text");
  }
  SECTION("a link to another folder") {
    fs::create_directory(folder / "other");
    write_text(folder / "other/.fettle-lock", "");
    write_text(folder / "other/letter", "text");
    fs::create_directory_symlink(folder / "other", partial);
    CHECK_THROWS_WITH(
        AtomicDirectory(folder / "out", options),
        Contains("found a link, which is not followed"));
    CHECK(read_text(folder / "other/letter") == "text");
  }
  SECTION("a lock that is a link") {
    fs::create_directory(partial);
    write_text(folder / "other", "text");
    fs::create_symlink(folder / "other", partial / ".fettle-lock");
    CHECK_THROWS_AS(AtomicDirectory(folder / "out", options), UserError);
    CHECK(read_text(folder / "other") == "text");
  }
  SECTION("an empty folder is taken") {
    fs::create_directory(partial);
    AtomicDirectory(folder / "out", options).commit();
    CHECK(fs::exists(folder / "out"));
  }
  SECTION("links within are removed, not followed") {
    fs::create_directories(folder / "other");
    write_text(folder / "other/letter", "text");
    fs::create_directory(partial);
    write_text(partial / ".fettle-lock", "");
    fs::create_directory_symlink(folder / "other", partial / "link");
    { const AtomicDirectory directory(folder / "out", options); }
    CHECK_FALSE(fs::exists(partial));
    CHECK(read_text(folder / "other/letter") == "text");
  }
}

TEST_CASE("space is checked against the disk") {
  const TemporaryFolder folder;
  const AtomicDirectory directory(folder / "out");
  CHECK_NOTHROW(directory.require_space(1));
  CHECK_THROWS_WITH(
      directory.require_space(1ULL << 61),
      Contains("disk full: needs 2097152 TiB"));
}

TEST_CASE("places where no folder can be made are refused") {
  const TemporaryFolder folder;
  write_text(folder / "file", "text");
  CHECK_THROWS_WITH(
      AtomicDirectory(folder / "file/out"), Contains("cannot be made"));
  write_text(folder / "out.partial", "text");
  CHECK_THROWS_WITH(AtomicDirectory(folder / "out"), Contains("out.partial"));
  fs::create_directories(folder / "other.partial/.fettle-lock");
  CHECK_THROWS_WITH(AtomicDirectory(folder / "other"), Contains("no mark"));
}

TEST_CASE("work that someone takes away is the user's doing, not a bug") {
  const TemporaryFolder folder;
  AtomicDirectory directory(folder / "out");
  fs::remove_all(directory.path());
  CHECK_THROWS_WITH(directory.require_space(1), Contains("cannot be used"));
  CHECK_THROWS_WITH(directory.commit(), Contains("removed or moved"));
}

TEST_CASE("a lock file that was replaced locks nothing out") {
  const TemporaryFolder folder;
  AtomicDirectory first(folder / "out");
  fs::rename(first.path(), folder / "moved");
  AtomicDirectory second(folder / "out");
  write_text(second.path() / "f", "second");
  second.commit();
  CHECK_THROWS_AS(first.commit(), UserError);
  CHECK(read_text(folder / "out/f") == "second");
}
