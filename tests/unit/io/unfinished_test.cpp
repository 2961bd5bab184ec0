// SPDX-License-Identifier: Apache-2.0
#include "io/unfinished.h"

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <string>

#include "io/atomic_directory.h"

namespace fs = std::filesystem;
using fettle::io::AtomicDirectory;
using fettle::io::Unfinished;

namespace {

// What clear_all says in a process that writes OUT and ends at once.
bool left_by_a_process(const fs::path& out, const std::string& worth) {
  const pid_t child = ::fork();
  if (child == 0) {
    const auto left = [&](const fs::path& partial) {
      return fs::exists(partial / "half.bin") ? worth : std::string();
    };
    const AtomicDirectory folder(out, {.left = left});
    std::ofstream(folder.path() / "half.bin") << "half";
    ::_exit(Unfinished::clear_all() ? 1 : 0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status) == 1;
}

}  // namespace

TEST_CASE("A process that ends at once leaves only what one can go on with") {
  std::string name = (fs::temp_directory_path() / "fettle-XXXXXX").string();
  const fs::path folder = ::mkdtemp(name.data());
  CHECK_FALSE(left_by_a_process(folder / "none", ""));
  CHECK_FALSE(fs::exists(folder / "none.partial"));
  CHECK(left_by_a_process(folder / "some", "a run stopped after step 7"));
  CHECK(fs::exists(folder / "some.partial" / "half.bin"));
  CHECK_FALSE(fs::exists(folder / "some"));
  fs::remove_all(folder);
}
