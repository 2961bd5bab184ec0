// SPDX-License-Identifier: Apache-2.0
#include "io/file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "core/error.h"
#include "fixtures.h"
#include "io/descriptor.h"

using Catch::Contains;
using fettle::InternalError;
using fettle::UserError;
using namespace fettle::io;

TEST_CASE("a file on disk and one in memory read the same") {
  const TemporaryFolder folder;
  write_text(folder / "f", "0123456789");
  const auto disk = open_file(folder / "f");
  const MemoryFile memory("f", to_bytes("0123456789"));
  for (const InputFile* file :
       {static_cast<const InputFile*>(disk.get()),
        static_cast<const InputFile*>(&memory)}) {
    CHECK(file->size() == 10);
    std::vector<std::byte> into(4);
    file->read_at(3, into);
    CHECK(into == to_bytes("3456"));
    file->read_at(6, into);
    CHECK(into == to_bytes("6789"));
    CHECK_NOTHROW(file->read_at(10, {}));
    CHECK_THROWS_WITH(file->read_at(7, into), Contains("incomplete download"));
    CHECK_THROWS_AS(file->read_at(11, {}), UserError);
    CHECK_THROWS_AS(file->read_at(UINT64_MAX - 1, into), UserError);
  }
}

TEST_CASE("a file that shrinks while it is open is noticed") {
  const TemporaryFolder folder;
  write_text(folder / "f", "0123456789");
  const auto file = open_file(folder / "f");
  std::filesystem::resize_file(folder / "f", 5);
  std::vector<std::byte> into(10);
  CHECK_THROWS_WITH(
      file->read_at(0, into), Contains("ended at byte 5 while it was read"));
}

TEST_CASE("only regular files are opened") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(
      open_file(folder / "none"), Contains("No such file or directory"));
  CHECK_THROWS_WITH(open_file(folder.path()), Contains("regular file"));
  CHECK_THROWS_WITH(open_file("/dev/null"), Contains("regular file"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(open_file(folder / "pipe"), Contains("regular file"));
  write_text(folder / "f", "x");
  std::filesystem::create_symlink("f", folder / "link");
  CHECK(open_file(folder / "link")->size() == 1);
}

TEST_CASE("a read that the system refuses is a user error") {
  // A process's own memory file is regular, and nothing lies at address 0.
  const auto file = open_file("/proc/self/mem");
  std::vector<std::byte> into(1);
  CHECK_THROWS_AS(file->read_at(0, into), UserError);
}

TEST_CASE("writes at any offset end in the same bytes on disk and in memory") {
  const TemporaryFolder folder;
  std::vector<std::byte> buffer;
  MemoryOutput memory("m", buffer);
  const auto disk = create_file(folder / "f");
  for (OutputFile* file :
       {static_cast<OutputFile*>(disk.get()),
        static_cast<OutputFile*>(&memory)}) {
    file->reserve(10);
    file->append(to_bytes("01"));
    file->write_at(6, to_bytes("67"));
    file->append(to_bytes("89"));
    file->write_at(2, to_bytes("2345"));
    CHECK(file->size() == 10);
    file->close();
  }
  CHECK(read_text(folder / "f") == "0123456789");
  CHECK(buffer == to_bytes("0123456789"));
}

TEST_CASE("closing a file twice is our bug") {
  const TemporaryFolder folder;
  const auto file = create_file(folder / "f");
  file->close();
  CHECK_THROWS_AS(file->close(), InternalError);
}

TEST_CASE("a reserved file that is given up leaves no false size") {
  const TemporaryFolder folder;
  {
    const auto file = create_file(folder / "f");
    file->reserve(1 << 20);
    file->append(to_bytes("abc"));
  }
  CHECK(std::filesystem::file_size(folder / "f") == 3);
}

TEST_CASE("a full disk says what the file needs") {
  const auto full = create_file("/dev/full");
  CHECK_THROWS_WITH(
      full->append(std::vector<std::byte>(2048)),
      Contains("disk full: needs 2.00 KiB in all; free some space"));

  std::vector<std::byte> buffer;
  MemoryOutput memory("m", buffer, 4096);
  CHECK_THROWS_WITH(
      memory.reserve(5000), Contains("disk full: needs 4.88 KiB in all"));
  memory.reserve(4096);
  memory.append(std::vector<std::byte>(4096));
  CHECK_THROWS_WITH(memory.append(to_bytes("x")), Contains("disk full"));
}

TEST_CASE("a reservation beyond the disk fails before a byte is written") {
  const TemporaryFolder folder;
  const auto space = std::filesystem::space(folder.path());
  const auto file = create_file(folder / "f");
  CHECK_THROWS_WITH(
      file->reserve(space.available + (64ULL << 30)), Contains("disk full"));
}

TEST_CASE("files that can't be created are refused") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(
      create_file(folder / "none/f"), Contains("cannot be created"));
  CHECK_THROWS_AS(create_file(folder.path()), UserError);
}

TEST_CASE("a small file is written whole, an old one replaced") {
  const TemporaryFolder folder;
  write_file(folder / "f", "a longer text");
  write_file(folder / "f", "short");
  CHECK(read_text(folder / "f") == "short");
}

TEST_CASE("a moved descriptor is closed once") {
  const TemporaryFolder folder;
  write_text(folder / "f", "x");
  Descriptor first(::open((folder / "f").c_str(), 0));
  REQUIRE(first.valid());
  Descriptor second(std::move(first));
  CHECK(second.valid());
  const int number = second.get();
  Descriptor third;
  third = std::move(second);
  CHECK(third.get() == number);
  third.reset();
  char c = 0;
  CHECK(::read(number, &c, 1) == -1);
}
