// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "core/error.h"

namespace fettle::exporter {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::uint32_t kGgufVersion = 3;
constexpr std::uint64_t kGgufAlignment = 32;

// Numbers of the types of values.
enum GgufType : std::uint32_t {
  kGgufU32 = 4,
  kGgufI32 = 5,
  kGgufF32 = 6,
  kGgufBool = 7,
  kGgufString = 8,
  kGgufArray = 9,
};

template <typename T>
constexpr GgufType type_of() {
  if constexpr (std::is_same_v<T, std::uint32_t>) return kGgufU32;
  if constexpr (std::is_same_v<T, std::int32_t>) return kGgufI32;
  if constexpr (std::is_same_v<T, float>) return kGgufF32;
  if constexpr (std::is_same_v<T, bool>) return kGgufBool;
  if constexpr (std::is_same_v<T, std::string>) return kGgufString;
  return kGgufArray;
}

std::uint64_t aligned(std::uint64_t at) {
  return (at + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment;
}

class GgufBytes {
 public:
  template <typename T>
  void number(T value) {
    const auto* const begin = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), begin, begin + sizeof(T));
  }

  void text(const std::string& value) {
    number<std::uint64_t>(value.size());
    const auto all = std::as_bytes(std::span(value));
    bytes_.insert(bytes_.end(), all.begin(), all.end());
  }

  template <typename T>
  void item(const T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
      text(value);
    } else if constexpr (std::is_same_v<T, bool>) {
      number<std::uint8_t>(value ? 1 : 0);
    } else {
      number(value);
    }
  }

  template <typename T>
  void item(const std::vector<T>& list) {
    number<std::uint32_t>(type_of<T>());
    number<std::uint64_t>(list.size());
    for (const T& value : list) item(value);
  }

  void value(const GgufValue& value) {
    std::visit(
        [this](const auto& held) {
          number<std::uint32_t>(type_of<std::decay_t<decltype(held)>>());
          item(held);
        },
        value);
  }

  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class GgufReader {
 public:
  explicit GgufReader(const io::InputFile& file) : file_(file) {}

  template <typename T>
  T number() {
    T value;
    file_.read_at(at_, std::as_writable_bytes(std::span(&value, 1)));
    at_ += sizeof(T);
    return value;
  }

  std::string text() {
    const auto size = number<std::uint64_t>();
    FETTLE_ASSERT(size <= file_.size());
    std::string value(size, '\0');
    file_.read_at(at_, std::as_writable_bytes(std::span(value)));
    at_ += size;
    return value;
  }

  template <typename T>
  T item() {
    if constexpr (std::is_same_v<T, std::string>) {
      return text();
    } else if constexpr (std::is_same_v<T, bool>) {
      return number<std::uint8_t>() != 0;
    } else {
      return number<T>();
    }
  }

  template <typename T>
  GgufValue list() {
    std::vector<T> values(number<std::uint64_t>());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = item<T>();
    return values;
  }

  GgufValue value() {
    const auto type = number<std::uint32_t>();
    switch (type) {
      case kGgufU32:
        return item<std::uint32_t>();
      case kGgufF32:
        return item<float>();
      case kGgufBool:
        return item<bool>();
      case kGgufString:
        return item<std::string>();
      default:
        FETTLE_ASSERT(type == kGgufArray);
    }
    const auto of = number<std::uint32_t>();
    if (of == kGgufString) return list<std::string>();
    if (of == kGgufI32) return list<std::int32_t>();
    if (of == kGgufBool) return list<bool>();
    FETTLE_ASSERT(of == kGgufF32);
    return list<float>();
  }

  std::uint64_t at() const { return at_; }

 private:
  const io::InputFile& file_;
  std::uint64_t at_ = 0;
};

}  // namespace

GgufWriter::GgufWriter(
    std::unique_ptr<io::OutputFile> out,
    const GgufKeys& keys,
    std::vector<GgufTensor> tensors)
    : out_(std::move(out)), tensors_(std::move(tensors)) {
  GgufBytes header;
  for (const char c : {'G', 'G', 'U', 'F'}) header.number(c);
  header.number(kGgufVersion);
  header.number<std::uint64_t>(tensors_.size());
  header.number<std::uint64_t>(keys.size());
  for (const auto& [key, value] : keys) {
    header.text(key);
    header.value(value);
  }
  std::uint64_t begin = 0;
  for (GgufTensor& tensor : tensors_) {
    tensor.begin = begin;
    begin += aligned(tensor.bytes);
    header.text(tensor.name);
    header.number(static_cast<std::uint32_t>(tensor.sizes.size()));
    for (const std::int64_t size : tensor.sizes) header.number(size);
    header.number(tensor.type);
    header.number(tensor.begin);
  }
  data_begin_ = aligned(header.bytes().size());
  out_->reserve(data_begin_ + begin);
  out_->append(header.bytes());
}

void GgufWriter::write(
    const std::string& name, std::span<const std::byte> bytes) {
  while (current_ < tensors_.size() && written_ == tensors_[current_].bytes) {
    ++current_;
    written_ = 0;
  }
  if (bytes.empty()) return;
  FETTLE_ASSERT(current_ < tensors_.size());
  const GgufTensor& tensor = tensors_[current_];
  FETTLE_ASSERT(tensor.name == name);
  FETTLE_ASSERT(bytes.size() <= tensor.bytes - written_);
  out_->write_at(data_begin_ + tensor.begin + written_, bytes);
  written_ += bytes.size();
}

// Loaders want the last tensor's padding too.
void GgufWriter::finish() {
  write({}, {});
  FETTLE_ASSERT(current_ == tensors_.size());
  const std::uint64_t missing = aligned(out_->size()) - out_->size();
  if (missing > 0) out_->append(std::vector<std::byte>(missing));
  out_->close();
}

std::uint64_t GgufWriter::total_bytes() const {
  std::uint64_t sum = 0;
  for (const GgufTensor& tensor : tensors_) sum += tensor.bytes;
  return sum;
}

GgufHeader read_gguf(const io::InputFile& file) {
  GgufReader reader(file);
  for (const char c : {'G', 'G', 'U', 'F'}) {
    FETTLE_ASSERT(reader.number<char>() == c);
  }
  FETTLE_ASSERT(reader.number<std::uint32_t>() == kGgufVersion);
  GgufHeader header;
  header.tensors.resize(reader.number<std::uint64_t>());
  header.keys.resize(reader.number<std::uint64_t>());
  for (auto& [key, value] : header.keys) {
    key = reader.text();
    value = reader.value();
  }
  for (GgufTensor& tensor : header.tensors) {
    tensor.name = reader.text();
    tensor.sizes.resize(reader.number<std::uint32_t>());
    for (std::int64_t& size : tensor.sizes) {
      size = reader.number<std::int64_t>();
    }
    tensor.type = reader.number<std::uint32_t>();
    tensor.begin = reader.number<std::uint64_t>();
  }
  header.data_begin = aligned(reader.at());
  return header;
}

}  // namespace fettle::exporter
