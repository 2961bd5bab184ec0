// SPDX-License-Identifier: Apache-2.0
// A folder that appears whole or not at all. Work happens in OUT.partial/;
// commit() makes it durable and renames it to OUT. One run at a time may hold
// an OUT.partial/: the lock ends with the process, however that ends. The lock
// file also says that the folder is Fettle's: no other is written into or
// removed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/descriptor.h"
#include "io/unfinished.h"

namespace fettle::io {

struct AtomicDirectoryOptions {
  bool resume = false;   // keep what a stopped run left in OUT.partial/
  bool restart = false;  // throw it away, whatever it is worth
  // The progress in a folder that a run can resume from, such as "a run stopped
  // after step 7"; empty: nothing. Without `resume` or `restart` a folder with
  // something is refused, and when commit() isn't reached it stays.
  std::function<std::string(const std::filesystem::path&)> left = {};
  // What the refusal advises to do.
  std::string advice =
      "choose another folder, or remove this one to throw that away";
};

class AtomicDirectory {
 public:
  // Makes OUT.partial/ (and OUT's parents) and locks it. Throws UserError when
  // OUT exists, another run holds the lock, the folder can't be made or is not
  // Fettle's, or what it holds would be lost.
  explicit AtomicDirectory(
      std::filesystem::path out, AtomicDirectoryOptions options = {});
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  // Removes what a run that was killed right after OUT was whole left beside
  // it.
  static void remove_remains(const std::filesystem::path& out);

  const std::filesystem::path& path() const { return partial_; }
  const std::filesystem::path& out() const { return out_; }
  // Whether OUT.partial/ held files of an earlier run, and they were kept.
  bool resumed() const { return resumed_; }

  // Throws UserError when the disk has less than `bytes` left for this user.
  void require_space(std::uint64_t bytes) const;

  // Entries whose names begin so are no part of OUT: they go after the commit,
  // so that until then a killed run finds them.
  void leave_out(std::string prefix) { left_out_.push_back(std::move(prefix)); }

  // When commit() isn't reached, nothing stays, whatever it seems worth: for a
  // failure that would come again.
  void abandon() { options_.left = {}; }

  // Fsyncs every file and folder, gives them the name OUT, fsyncs its parent,
  // and removes OUT.partial/. A run killed during this finds OUT whole, or
  // OUT.partial/ as it was before. Throws UserError when OUT appeared meanwhile
  // or the disk fails; OUT.partial/ then stays where all was written.
  void commit();

 private:
  void make_partial() const;
  void lock();
  bool holds_lock() const;
  void check_absent() const;
  void take_up();
  bool holds_files() const;
  bool clear() const;
  void gather() const;
  void scatter() const;

  std::filesystem::path out_;
  std::filesystem::path partial_;
  AtomicDirectoryOptions options_;
  std::vector<std::string> left_out_;
  Descriptor lock_;  // of OUT.partial/.fettle-lock
  bool resumed_ = false;
  std::optional<Unfinished> unfinished_;  // until it is whole
  bool whole_ = false;  // all is written, be it named OUT or not
};

}  // namespace fettle::io
