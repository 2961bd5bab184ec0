// SPDX-License-Identifier: Apache-2.0
// A folder that appears whole or not at all. Work happens in OUT.partial/;
// commit() makes it durable and renames it to OUT. One run at a time may hold
// an OUT.partial/: the lock ends with the process, however that ends.
#pragma once

#include <cstdint>
#include <filesystem>

#include "io/descriptor.h"

namespace fettle::io {

struct AtomicDirectoryOptions {
  bool resume = false;  // keep what a killed run left in OUT.partial/
  bool keep_unfinished =
      true;  // leave OUT.partial/ when commit() isn't reached
};

class AtomicDirectory {
 public:
  // Makes OUT.partial/ (and OUT's parents) and locks it. Throws UserError when
  // OUT exists, another run holds the lock, or the folder can't be made.
  explicit AtomicDirectory(
      std::filesystem::path out, AtomicDirectoryOptions options = {});
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const std::filesystem::path& path() const { return partial_; }
  const std::filesystem::path& out() const { return out_; }
  // Whether OUT.partial/ held files of an earlier run, and they were kept.
  bool resumed() const { return resumed_; }

  // Throws UserError when the disk has less than `bytes` left for this user.
  void require_space(std::uint64_t bytes) const;

  // Fsyncs every file and folder, renames, fsyncs the parent. Throws UserError
  // when OUT appeared meanwhile or the disk fails; OUT.partial/ then stays.
  void commit();

 private:
  void make_partial() const;
  int try_lock();
  void check_absent() const;
  bool holds_files() const;
  void clear() const;

  std::filesystem::path out_;
  std::filesystem::path partial_;
  AtomicDirectoryOptions options_;
  Descriptor lock_;  // of OUT.partial/.fettle-lock
  bool resumed_ = false;
};

}  // namespace fettle::io
