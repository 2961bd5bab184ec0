// SPDX-License-Identifier: Apache-2.0
// Numbers of some bits one behind the other, the first in the lowest bits of
// the first byte, a number's lowest bit first. For tables; rows have faster
// code.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace fettle::kernels {

class BitWriter {
 public:
  // `number` has no more than `bits` bits, of 32 at most.
  void put(std::uint32_t number, int bits) {
    for (int done = 0; done < bits;) {
      if (size_ == 0) bytes_.push_back(0);
      bytes_.back() |= static_cast<std::uint8_t>(number >> done << size_);
      const int taken = std::min(bits - done, 8 - size_);
      done += taken;
      size_ = (size_ + taken) % 8;
    }
  }
  // The last byte is filled up with zeros.
  const std::vector<std::uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<std::uint8_t> bytes_;
  int size_ = 0;  // of the last byte
};

class BitReader {
 public:
  explicit BitReader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  // Zeros behind the end.
  std::uint32_t get(int bits) {
    std::uint64_t number = 0;
    for (int done = 0; done < bits;) {
      const std::size_t byte = at_ / 8;
      const int place = static_cast<int>(at_ % 8);
      const std::uint64_t found = byte < bytes_.size() ? bytes_[byte] : 0;
      number |= found >> place << done;
      const int taken = std::min(bits - done, 8 - place);
      done += taken;
      at_ += static_cast<std::size_t>(taken);
    }
    return static_cast<std::uint32_t>(
        number & ((std::uint64_t{1} << bits) - 1));
  }

  bool ran_over() const { return at_ > 8 * bytes_.size(); }

  // Whether all bytes were read, and only zeros are left of the last.
  bool is_at_end() {
    const int left = static_cast<int>((8 - at_ % 8) % 8);
    return get(left) == 0 && at_ == 8 * bytes_.size();
  }

 private:
  std::span<const std::uint8_t> bytes_;
  std::size_t at_ = 0;
};

}  // namespace fettle::kernels
