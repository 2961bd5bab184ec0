// SPDX-License-Identifier: Apache-2.0
// A file descriptor that closes itself, and the text of a failed system call.
#pragma once

#include <unistd.h>

#include <string>
#include <system_error>
#include <utility>

namespace fettle::io {

class Descriptor {
 public:
  explicit Descriptor(int value = -1) : value_(value) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept
      : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) reset(std::exchange(other.value_, -1));
    return *this;
  }

  int get() const { return value_; }
  bool valid() const { return value_ >= 0; }
  int release() { return std::exchange(value_, -1); }
  void reset(int value = -1) {
    if (valid()) ::close(value_);
    value_ = value;
  }

 private:
  int value_;
};

// "No such file or directory" for ENOENT.
inline std::string error_text(int error) {
  return std::generic_category().message(error);
}

}  // namespace fettle::io
