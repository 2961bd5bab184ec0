// SPDX-License-Identifier: Apache-2.0
#include "store/scratch_file.h"

#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"

using Catch::Contains;
using fettle::UserError;
using fettle::store::ScratchFile;

namespace {

std::filesystem::path fresh_folder(const std::string& name) {
  const auto folder = std::filesystem::temp_directory_path() /
                      ("fettle-test-" + name + std::to_string(::getpid()));
  std::filesystem::remove_all(folder);
  return folder;
}

std::vector<std::byte> filled(std::size_t size, int value) {
  return std::vector<std::byte>(size, static_cast<std::byte>(value));
}

bool holds(const ScratchFile& file, const ScratchFile::Span& span, int value) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(span.size));
  file.read(span, bytes);
  return bytes == filled(bytes.size(), value);
}

// While it lives, no file of this process may grow beyond `bytes`: the nearest
// thing to a full disk that needs no privilege.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int) = SIG_DFL;
};

}  // namespace

TEST_CASE("a scratch file is made by the first write and has no name") {
  const auto folder = fresh_folder("nameless");
  ScratchFile file(folder / "deeper");
  CHECK_FALSE(std::filesystem::exists(folder));
  const auto span = file.write(filled(5000, 7));
  CHECK(std::filesystem::is_empty(folder / "deeper"));
  CHECK(holds(file, span, 7));
  CHECK(file.size() == 8192);
  std::filesystem::remove_all(folder);
}

TEST_CASE("freed spans are used again, merged with their neighbours") {
  ScratchFile file(std::filesystem::temp_directory_path());
  const auto a = file.write(filled(4096, 1));
  const auto b = file.write(filled(4096, 2));
  const auto c = file.write(filled(4096, 3));
  const auto d = file.write(filled(4096, 4));
  REQUIRE(file.size() == 4 * 4096);

  file.free(a);
  file.free(c);
  file.free(b);  // joins on both sides
  const auto joined = file.write(filled(3 * 4096, 5));
  CHECK(joined.offset == a.offset);
  CHECK(file.size() == 4 * 4096);
  CHECK(holds(file, joined, 5));
  CHECK(holds(file, d, 4));
}

TEST_CASE("the smallest span that is large enough is chosen, its rest kept") {
  ScratchFile file(std::filesystem::temp_directory_path());
  const auto large = file.write(filled(3 * 4096, 1));
  const auto wall = file.write(filled(4096, 2));
  const auto small = file.write(filled(2 * 4096, 3));
  const auto end = file.write(filled(4096, 4));
  file.free(large);
  file.free(small);
  CHECK(file.write(filled(4097, 5)).offset == small.offset);
  CHECK(file.write(filled(4096, 6)).offset == large.offset);
  CHECK(file.write(filled(8192, 7)).offset == large.offset + 4096);
  CHECK(file.size() == end.offset + 4096);
  CHECK(holds(file, wall, 2));
}

TEST_CASE("clear gives the disk space back and the file goes on") {
  ScratchFile file(std::filesystem::temp_directory_path());
  file.write(filled(10, 1));
  file.clear();
  CHECK(file.size() == 0);
  CHECK(holds(file, file.write(filled(3, 9)), 9));
}

TEST_CASE("a full disk is one line, and what was written stays whole") {
  ScratchFile file(std::filesystem::temp_directory_path());
  const auto first = file.write(filled(8192, 1));
  {
    FileSizeLimit limit(3 * 4096);
    CHECK_THROWS_WITH(
        file.write(filled(8192, 2)),
        Contains("write 8.00 KiB of activations") && Contains("--ram"));
    CHECK_THROWS_AS(file.write(filled(8192, 2)), UserError);
  }
  CHECK(holds(file, first, 1));
  const auto second = file.write(filled(8192, 3));
  CHECK(second.offset == 8192);  // the failed span went back
  CHECK(holds(file, second, 3));
}

TEST_CASE("a scratch folder that can't be one is refused") {
  const auto path = fresh_folder("occupied");
  std::ofstream(path) << "a file";
  ScratchFile file(path);
  CHECK_THROWS_WITH(
      file.write(filled(1, 1)), Contains("make the scratch folder"));
  std::filesystem::remove(path);

  ScratchFile proc("/proc");  // a folder in which nobody makes files
  CHECK_THROWS_WITH(proc.write(filled(1, 1)), Contains("make a scratch file"));
}

TEST_CASE("a span that is not in the file is refused") {
  ScratchFile file(std::filesystem::temp_directory_path());
  file.write(filled(10, 1));
  std::vector<std::byte> bytes(10);
  CHECK_THROWS_WITH(
      file.read({1 << 20, 10}, bytes), Contains("read activations back"));
}
