// SPDX-License-Identifier: Apache-2.0
// A file without a name that holds spans of bytes: it is unlinked as soon as it
// is open, so its disk space goes back to the system however the process ends.
// A freed span is used again before the file grows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>

namespace fettle::store {

class ScratchFile {
 public:
  // Where a span lies, in bytes; `size` is what was written.
  struct Span {
    std::int64_t offset = 0;
    std::int64_t size = 0;
  };

  // The folder is made, and the file opened, by the first write.
  explicit ScratchFile(std::filesystem::path folder);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  // Writes all of `bytes` (at least one). Throws UserError when the folder
  // can't be written or its disk is full; the file is then as it was.
  Span write(std::span<const std::byte> bytes);
  // Fills `into`, whose size is the span's. Throws UserError when the disk
  // fails. Several threads may read at once.
  void read(const Span& span, std::span<std::byte> into) const;
  void free(const Span& span);
  void clear();  // frees all spans and gives the disk space back

  std::int64_t size() const { return size_; }  // end of the last span ever used

 private:
  void open();
  Span allocate(std::int64_t size);

  std::filesystem::path folder_;
  int descriptor_ = -1;
  std::int64_t size_ = 0;
  std::map<std::int64_t, std::int64_t> free_;  // offset to length, none adjoin
};

}  // namespace fettle::store
