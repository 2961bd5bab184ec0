// SPDX-License-Identifier: Apache-2.0
// Files behind an interface, so that every reader and writer also runs on
// memory and on a disk that fails. Positions and sizes are in bytes. A read
// either fills its whole buffer or throws: no caller sees a short read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fettle::io {

class InputFile {
 public:
  virtual ~InputFile() = default;
  virtual std::uint64_t size() const = 0;
  // Fills `into` from `offset`. Throws UserError when the file ends before, or
  // can't be read. Any number of threads may call it at once.
  virtual void read_at(
      std::uint64_t offset, std::span<std::byte> into) const = 0;
  virtual const std::string& name() const = 0;  // for messages
  // Says that these bytes will be read soon, so that the system may fetch them
  // behind other work.
  virtual void will_need(
      std::uint64_t /*offset*/, std::uint64_t /*bytes*/) const {}
};

// Opens a regular file (or a link to one) for pread. Throws UserError when it
// is missing, unreadable or something else, such as a folder or a pipe.
std::unique_ptr<InputFile> open_file(const std::filesystem::path& path);

// A file whose bytes are held in memory.
class MemoryFile : public InputFile {
 public:
  MemoryFile(std::string name, std::vector<std::byte> bytes);
  std::uint64_t size() const override;
  void read_at(std::uint64_t offset, std::span<std::byte> into) const override;
  const std::string& name() const override;

 private:
  std::string name_;
  std::vector<std::byte> bytes_;
};

// A new file being written. Every failure is a UserError; for a full disk it
// says how much the file needs in all, if reserve() was given that. A file that
// is dropped without close() is not whole.
class OutputFile {
 public:
  virtual ~OutputFile() = default;
  // Announces the file's final size, so that a full disk shows at once.
  virtual void reserve(std::uint64_t total) = 0;
  // Writes all of `bytes` at `offset`; a gap left before it reads as zeros.
  // Into a file on disk threads may write side by side.
  virtual void write_at(
      std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual std::uint64_t size() const = 0;  // end of the furthest write
  virtual void close() = 0;                // fsync, then close
  virtual const std::string& name() const = 0;

  void append(std::span<const std::byte> bytes) { write_at(size(), bytes); }
};

// Creates `path`, or empties it. Throws UserError when that isn't possible.
std::unique_ptr<OutputFile> create_file(const std::filesystem::path& path);

// Opens an existing file to change bytes of it in place. Throws UserError when
// that isn't possible.
std::unique_ptr<OutputFile> update_file(const std::filesystem::path& path);

// How writers of several files make each; tests pass a failing one.
using FileCreator = std::function<std::unique_ptr<OutputFile>(
    const std::filesystem::path& path)>;

// Writes into a buffer that outlives it, and is full after `capacity` bytes.
class MemoryOutput : public OutputFile {
 public:
  MemoryOutput(
      std::string name,
      std::vector<std::byte>& buffer,
      std::uint64_t capacity = UINT64_MAX);
  void reserve(std::uint64_t total) override;
  void write_at(
      std::uint64_t offset, std::span<const std::byte> bytes) override;
  std::uint64_t size() const override;
  void close() override;
  const std::string& name() const override;

 private:
  std::string name_;
  std::vector<std::byte>* buffer_;
  std::uint64_t capacity_;
  std::uint64_t needed_ = 0;
};

// Writes a small file whole: create, append, fsync, close.
void write_file(const std::filesystem::path& path, std::string_view text);

}  // namespace fettle::io
