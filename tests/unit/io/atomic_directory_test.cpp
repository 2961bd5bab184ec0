// SPDX-License-Identifier: Apache-2.0
#include "io/atomic_directory.h"

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
  CHECK_THROWS_AS(
      AtomicDirectory(folder / "out", {.keep_unfinished = false}), UserError);
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
  {
    const AtomicDirectory resumed(out, {.resume = true});
    CHECK(resumed.resumed());
    CHECK(read_text(resumed.path() / "layer-0") == "whole");
  }
  {
    const AtomicDirectory again(out);
    CHECK_FALSE(again.resumed());
    CHECK_FALSE(fs::exists(again.path() / "layer-0"));
  }
  AtomicDirectory fresh(out, {.resume = true});
  CHECK_FALSE(fresh.resumed());
}

TEST_CASE("unfinished work is left or removed, as asked") {
  const TemporaryFolder folder;
  { const AtomicDirectory kept(folder / "kept"); }
  CHECK(fs::exists(folder / "kept.partial"));
  {
    const AtomicDirectory dropped(folder / "out", {.keep_unfinished = false});
    write_text(dropped.path() / "f", "text");
  }
  CHECK_FALSE(fs::exists(folder / "out.partial"));
  {
    AtomicDirectory done(folder / "done", {.keep_unfinished = false});
    done.commit();
  }
  CHECK(fs::exists(folder / "done"));
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
  CHECK_THROWS_WITH(
      AtomicDirectory(folder / "other"), Contains("cannot be made"));
}

TEST_CASE("work that someone takes away is the user's doing, not a bug") {
  const TemporaryFolder folder;
  AtomicDirectory directory(folder / "out");
  fs::remove_all(directory.path());
  CHECK_THROWS_WITH(directory.require_space(1), Contains("cannot be used"));
  CHECK_THROWS_WITH(directory.commit(), Contains("cannot be used"));
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
