// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/text_file.h"
#include "io/descriptor.h"
#include "io/file.h"

namespace fettle::io {
namespace {

[[noreturn]] void too_short(
    const InputFile& file, std::uint64_t offset, std::size_t wanted) {
  throw UserError(
      "file",
      file.name(),
      fmt::format(
          "expected {} bytes at offset {}, but the file ends at {}. Perhaps an "
          "incomplete download?",
          wanted,
          offset,
          file.size()));
}

bool holds(const InputFile& file, std::uint64_t offset, std::size_t count) {
  return offset <= file.size() && count <= file.size() - offset;
}

class DiskFile : public InputFile {
 public:
  DiskFile(Descriptor descriptor, std::string name, std::uint64_t size)
      : descriptor_(std::move(descriptor)),
        name_(std::move(name)),
        size_(size) {}

  std::uint64_t size() const override { return size_; }
  const std::string& name() const override { return name_; }

  void will_need(std::uint64_t offset, std::uint64_t bytes) const override {
    // A hint: its failure costs only speed.
    (void)::posix_fadvise(
        descriptor_.get(),
        static_cast<off_t>(offset),
        static_cast<off_t>(bytes),
        POSIX_FADV_WILLNEED);
  }

  void read_at(std::uint64_t offset, std::span<std::byte> into) const override {
    if (!holds(*this, offset, into.size())) {
      too_short(*this, offset, into.size());
    }
    while (!into.empty()) {
      const ssize_t got = ::pread(
          descriptor_.get(),
          into.data(),
          into.size(),
          static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) {
        throw UserError("file", name_, "cannot be read: " + error_text(errno));
      }
      if (got == 0) {
        throw UserError(
            "file",
            name_,
            fmt::format(
                "ended at byte {} while it was read, but had {} bytes before; "
                "leave the file alone while Fettle runs",
                offset,
                size_));
      }
      into = into.subspan(static_cast<std::size_t>(got));
      offset += static_cast<std::uint64_t>(got);
    }
  }

 private:
  Descriptor descriptor_;
  std::string name_;
  std::uint64_t size_;
};

}  // namespace

std::unique_ptr<InputFile> open_file(const std::filesystem::path& path) {
  // Without O_NONBLOCK, opening a pipe would wait for a writer.
  Descriptor descriptor(
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!descriptor.valid()) {
    throw UserError(
        "file", path.string(), "cannot be opened: " + error_text(errno));
  }
  struct stat status {};
  if (::fstat(descriptor.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    std::error_code ignored;
    throw UserError(
        "file",
        path.string(),
        fmt::format(
            "expected a regular file, found {}",
            kind_of_file(std::filesystem::status(path, ignored).type())));
  }
  // Weights are read in long runs; failure of the hint costs only speed.
  (void)::posix_fadvise(descriptor.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  return std::make_unique<DiskFile>(
      std::move(descriptor),
      path.string(),
      static_cast<std::uint64_t>(status.st_size));
}

MemoryFile::MemoryFile(std::string name, std::vector<std::byte> bytes)
    : name_(std::move(name)), bytes_(std::move(bytes)) {}

std::uint64_t MemoryFile::size() const { return bytes_.size(); }

const std::string& MemoryFile::name() const { return name_; }

void MemoryFile::read_at(
    std::uint64_t offset, std::span<std::byte> into) const {
  if (!holds(*this, offset, into.size())) too_short(*this, offset, into.size());
  if (into.empty()) return;
  std::memcpy(into.data(), bytes_.data() + offset, into.size());
}

}  // namespace fettle::io
