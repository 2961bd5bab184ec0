// SPDX-License-Identifier: Apache-2.0
#include "store/scratch_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"

namespace fettle::store {
namespace {

// Spans begin on pages, so that writing one never reads its neighbour's page.
constexpr std::int64_t kPage = 4096;

std::int64_t pages(std::int64_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}

[[noreturn]] void refuse(
    const std::filesystem::path& folder, const std::string& what, int error) {
  throw UserError(
      "scratch",
      folder.string(),
      fmt::format(
          "expected to {}, found: {}; free space there, choose another folder "
          "(--scratch) or raise --ram",
          what,
          std::generic_category().message(error)));
}

}  // namespace

ScratchFile::ScratchFile(std::filesystem::path folder)
    : folder_(std::move(folder)) {}

ScratchFile::~ScratchFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void ScratchFile::open() {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) refuse(folder_, "make the scratch folder", error.value());
  std::string name = (folder_ / "fettle-scratch-XXXXXX").string();
  descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor_ < 0) refuse(folder_, "make a scratch file", errno);
  ::unlink(name.c_str());
}

ScratchFile::Span ScratchFile::allocate(std::int64_t size) {
  const std::int64_t length = pages(size);
  // Best fit: boundaries of a sweep come in a few sizes, which then fit
  // exactly.
  auto best = free_.end();
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (it->second < length) continue;
    if (best == free_.end() || it->second < best->second) best = it;
  }
  if (best == free_.end()) {
    const Span span{size_, size};
    size_ += length;
    return span;
  }
  const auto [offset, room] = *best;
  free_.erase(best);
  if (room > length) free_[offset + length] = room - length;
  return {offset, size};
}

ScratchFile::Span ScratchFile::write(std::span<const std::byte> bytes) {
  FETTLE_ASSERT(!bytes.empty());
  if (descriptor_ < 0) open();
  const Span span = allocate(static_cast<std::int64_t>(bytes.size()));
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pwrite(
        descriptor_,
        bytes.data() + done,
        bytes.size() - done,
        span.offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int error = n < 0 ? errno : ENOSPC;
      free(span);
      refuse(
          folder_,
          fmt::format(
              "write {} of activations after {}",
              format_bytes(span.size),
              format_bytes(span.offset)),
          error);
    }
    done += static_cast<std::size_t>(n);
  }
  return span;
}

void ScratchFile::read(const Span& span, std::span<std::byte> into) const {
  FETTLE_ASSERT(span.size == static_cast<std::int64_t>(into.size()));
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t n = ::pread(
        descriptor_,
        into.data() + done,
        into.size() - done,
        span.offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) refuse(folder_, "read activations back", n < 0 ? errno : EIO);
    done += static_cast<std::size_t>(n);
  }
}

void ScratchFile::free(const Span& span) {
  std::int64_t offset = span.offset;
  std::int64_t length = pages(span.size);
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && next->first == offset + length) {
    length += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      length += before->second;
      free_.erase(before);
    }
  }
  free_[offset] = length;
}

void ScratchFile::clear() {
  free_.clear();
  size_ = 0;
  if (descriptor_ < 0) return;
  // A new file is opened by the next write: closing gives the space back.
  ::close(descriptor_);
  descriptor_ = -1;
}

}  // namespace fettle::store
