// SPDX-License-Identifier: Apache-2.0
#include "io/disk_speed.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <vector>

#include "core/error.h"
#include "io/descriptor.h"
#include "io/file.h"

namespace fettle::io {

namespace {

constexpr std::size_t kBlock = std::size_t{4} << 20;

}  // namespace

double measure_read(const std::filesystem::path& path, std::uint64_t bytes) {
  const auto file = open_file(path);
  const std::uint64_t total = std::min(bytes, file->size());
  if (total == 0) {
    throw UserError(
        "disk", path.string(), "expected a file to time, found an empty one");
  }
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (descriptor.valid()) {
    ::posix_fadvise(
        descriptor.get(), 0, static_cast<off_t>(total), POSIX_FADV_DONTNEED);
  }
  std::vector<std::byte> block(kBlock);
  const auto start = std::chrono::steady_clock::now();
  for (std::uint64_t at = 0; at < total; at += block.size()) {
    block.resize(std::min<std::uint64_t>(kBlock, total - at));
    file->read_at(at, block);
  }
  const std::chrono::duration<double> passed =
      std::chrono::steady_clock::now() - start;
  return static_cast<double>(total) / std::max(passed.count(), 1e-9);
}

}  // namespace fettle::io
