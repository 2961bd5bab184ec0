// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"
#include "io/descriptor.h"
#include "io/file.h"

namespace fettle::io {
namespace {

[[noreturn]] void write_failed(
    const OutputFile& file, int error, std::uint64_t needed) {
  if (error == ENOSPC || error == EDQUOT) {
    throw UserError(
        "file",
        file.name(),
        fmt::format(
            "disk full: needs {} in all; free some space or choose another "
            "folder",
            format_bytes(static_cast<std::int64_t>(needed))));
  }
  throw UserError(
      "file", file.name(), "cannot be written: " + error_text(error));
}

class DiskOutput : public OutputFile {
 public:
  DiskOutput(Descriptor descriptor, std::string name)
      : descriptor_(std::move(descriptor)), name_(std::move(name)) {}

  void reserve(std::uint64_t total) override {
    needed_ = total;
    if (total == 0) return;
    const int failed = ::fallocate(
        descriptor_.get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(total));
    // Not every file system can reserve; there the write itself will fail.
    if (failed != 0 && (errno == ENOSPC || errno == EDQUOT)) {
      write_failed(*this, errno, total);
    }
  }

  void write_at(
      std::uint64_t offset, std::span<const std::byte> bytes) override {
    const std::uint64_t end = offset + bytes.size();
    while (!bytes.empty()) {
      const ssize_t put = ::pwrite(
          descriptor_.get(),
          bytes.data(),
          bytes.size(),
          static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) write_failed(*this, errno, std::max(needed_, end));
      bytes = bytes.subspan(static_cast<std::size_t>(put));
      offset += static_cast<std::uint64_t>(put);
    }
    std::uint64_t size = size_;
    while (size < end && !size_.compare_exchange_weak(size, end)) {
    }
  }

  std::uint64_t size() const override { return size_; }
  const std::string& name() const override { return name_; }

  void close() override {
    FETTLE_ASSERT(descriptor_.valid());
    // /dev/full and its like can't be synced, which is no failure.
    if (::fsync(descriptor_.get()) != 0 && errno != EINVAL) {
      write_failed(*this, errno, std::max(needed_, size()));
    }
    if (::close(descriptor_.release()) != 0) {
      write_failed(*this, errno, std::max(needed_, size()));
    }
  }

 private:
  Descriptor descriptor_;
  std::string name_;
  std::atomic<std::uint64_t> size_ = 0;  // threads may write side by side
  std::uint64_t needed_ = 0;
};

std::unique_ptr<OutputFile> open_output(
    const std::filesystem::path& path, int flags, const char* what) {
  Descriptor descriptor(
      ::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666));
  if (!descriptor.valid()) {
    throw UserError(
        "file",
        path.string(),
        fmt::format("cannot be {}: {}", what, error_text(errno)));
  }
  return std::make_unique<DiskOutput>(std::move(descriptor), path.string());
}

}  // namespace

std::unique_ptr<OutputFile> create_file(const std::filesystem::path& path) {
  return open_output(path, O_CREAT | O_TRUNC, "created");
}

std::unique_ptr<OutputFile> update_file(const std::filesystem::path& path) {
  return open_output(path, 0, "changed");
}

MemoryOutput::MemoryOutput(
    std::string name, std::vector<std::byte>& buffer, std::uint64_t capacity)
    : name_(std::move(name)), buffer_(&buffer), capacity_(capacity) {
  buffer.clear();
}

void MemoryOutput::reserve(std::uint64_t total) {
  needed_ = total;
  if (total > capacity_) write_failed(*this, ENOSPC, total);
}

void MemoryOutput::write_at(
    std::uint64_t offset, std::span<const std::byte> bytes) {
  const std::uint64_t end = offset + bytes.size();
  if (end > capacity_) write_failed(*this, ENOSPC, std::max(needed_, end));
  if (bytes.empty()) return;
  buffer_->resize(std::max<std::size_t>(buffer_->size(), end));
  std::memcpy(buffer_->data() + offset, bytes.data(), bytes.size());
}

std::uint64_t MemoryOutput::size() const { return buffer_->size(); }

void MemoryOutput::close() {}

const std::string& MemoryOutput::name() const { return name_; }

void write_file(const std::filesystem::path& path, std::string_view text) {
  const auto file = create_file(path);
  file->append(std::as_bytes(std::span(text)));
  file->close();
}

}  // namespace fettle::io
