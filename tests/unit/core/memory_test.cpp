// SPDX-License-Identifier: Apache-2.0
#include "core/memory.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>

#include "core/error.h"

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kMiB = 1 << 20;

// Maps and touches `bytes` of memory, then gives all of it back.
void touch(std::size_t bytes) {
  void* block = ::mmap(
      nullptr,
      bytes,
      PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS,
      -1,
      0);
  REQUIRE(block != MAP_FAILED);
  std::memset(block, 1, bytes);
  ::munmap(block, bytes);
}

// A root folder with the files given, such as {"proc/meminfo", "…"}.
class FakeRoot {
 public:
  FakeRoot() {
    std::string name = (fs::temp_directory_path() / "fettle-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~FakeRoot() { fs::remove_all(path_); }
  void add(const std::string& name, const std::string& text) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name) << text;
  }
  std::int64_t available() const { return fettle::available_memory(path_); }
  std::optional<std::int64_t> room_under_own_limits() const {
    return fettle::room_under_own_limits(path_);
  }

 private:
  fs::path path_;
};

}  // namespace

TEST_CASE("the peak follows memory that was used and given back") {
  // In this order: the process may grow between the two.
  const std::int64_t resident = fettle::resident_memory();
  const std::int64_t before = fettle::peak_resident_memory();
  CHECK(before >= resident);
  touch(static_cast<std::size_t>(256 * kMiB));
  CHECK(fettle::peak_resident_memory() >= before + 200 * kMiB);
  CHECK(fettle::resident_memory() < before + 128 * kMiB);
  if (fettle::reset_peak_resident_memory()) {
    CHECK(fettle::peak_resident_memory() < before + 128 * kMiB);
  }
}

TEST_CASE("this machine has memory left") {
  CHECK(fettle::available_memory() > kMiB);
}

TEST_CASE("room is told of limits of this process alone") {
  const FakeRoot root;
  root.add("proc/self/status", "VmSize:\t 1024 kB\nVmData:\t 512 kB\n");
  struct rlimit before {};
  REQUIRE(::getrlimit(RLIMIT_DATA, &before) == 0);
  if (before.rlim_cur != RLIM_INFINITY) return;
  struct rlimit bound = before;
  bound.rlim_cur = static_cast<rlim_t>(1) << 50;
  REQUIRE(::setrlimit(RLIMIT_DATA, &bound) == 0);
  const auto room = root.room_under_own_limits();
  REQUIRE(::setrlimit(RLIMIT_DATA, &before) == 0);
  CHECK(room == (std::int64_t{1} << 50) - 512 * 1024);
  CHECK(!root.room_under_own_limits());
}

TEST_CASE("without control groups, what the kernel calls available counts") {
  const FakeRoot root;
  CHECK_THROWS_AS(root.available(), fettle::UserError);
  root.add("proc/meminfo", "MemTotal:  9 kB\nMemAvailable:     4096 kB\n");
  CHECK(root.available() == 4 * kMiB);
}

TEST_CASE("the tightest control group above the process bounds it") {
  const FakeRoot root;
  root.add("proc/meminfo", "MemAvailable: 1048576 kB\n");
  root.add("proc/self/cgroup", "1:cpu:/x\n0::/job/step\nno group\n");
  root.add("sys/fs/cgroup/job/step/memory.max", "max\n");
  root.add("sys/fs/cgroup/job/step/memory.current", "5000\n");
  CHECK(root.available() == 1024 * kMiB);
  root.add("sys/fs/cgroup/job/memory.max", "500000\n");
  root.add("sys/fs/cgroup/job/memory.current", "300000\n");
  CHECK(root.available() == 200000);
  root.add("sys/fs/cgroup/job/memory.stat", "anon 9\ninactive_file 100000\n");
  CHECK(root.available() == 300000);
  root.add("sys/fs/cgroup/memory.max", "400000\n");
  root.add("sys/fs/cgroup/memory.current", "450000\n");
  CHECK(root.available() == 0);
}

TEST_CASE("version 1 control groups bound it too") {
  const FakeRoot root;
  root.add("proc/meminfo", "MemAvailable: 1048576 kB\n");
  root.add("proc/self/cgroup", "4:cpu,memory:/job\n");
  const std::string group = "sys/fs/cgroup/memory/job/";
  root.add(group + "memory.limit_in_bytes", "1000000\n");
  root.add(group + "memory.usage_in_bytes", "600000\n");
  root.add(group + "memory.stat", "total_inactive_file 50000\n");
  CHECK(root.available() == 450000);
}

TEST_CASE("a meminfo without the line is refused") {
  const FakeRoot root;
  root.add("proc/meminfo", "MemAvailable: lots\n");
  CHECK_THROWS_WITH(root.available(), Catch::Contains("MemAvailable"));
}
