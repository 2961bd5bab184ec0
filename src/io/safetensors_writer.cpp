// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "io/safetensors.h"
#include "io/tensor_size.h"

namespace fettle::io {
namespace {

constexpr std::size_t kAlignment = 8;

// Spans from the first tensor's byte on, by falling element size.
std::vector<TensorInfo> lay_out(std::vector<TensorSpec> specs) {
  std::vector<std::size_t> order(specs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater<>{}, [&](std::size_t i) {
    return size_of(specs[i].dtype);
  });
  std::vector<TensorInfo> tensors(specs.size());
  std::uint64_t offset = 0;
  for (const std::size_t i : order) {
    TensorInfo& info = tensors[i];
    info.begin = offset;
    offset += specs[i].bytes();
    info.end = offset;
    info.name = std::move(specs[i].name);
    info.dtype = specs[i].dtype;
    info.shape = std::move(specs[i].shape);
  }
  return tensors;
}

std::string header_text(
    const std::vector<TensorInfo>& tensors, const Metadata& metadata) {
  Json json = Json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  for (const TensorInfo& info : tensors) {
    json[info.name] = {
        {"dtype", name_of(info.dtype)},
        {"shape", info.shape},
        {"data_offsets", {info.begin, info.end}}};
  }
  std::string text = json.dump();
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  return text;
}

void check_names(const std::vector<TensorSpec>& specs) {
  std::set<std::string_view> names{"__metadata__"};
  for (const TensorSpec& spec : specs) {
    FETTLE_ASSERT(names.insert(spec.name).second);
  }
}

}  // namespace

std::uint64_t TensorSpec::bytes() const {
  const auto size = byte_size(dtype, shape);
  if (!size) {
    throw UserError(
        "safetensors",
        name,
        fmt::format(
            "shape [{}] holds no number of bytes that a file can have",
            fmt::join(shape, ", ")));
  }
  return *size;
}

SafetensorsWriter::SafetensorsWriter(
    std::unique_ptr<OutputFile> out,
    std::vector<TensorSpec> tensors,
    Metadata metadata)
    : out_(std::move(out)) {
  check_names(tensors);
  tensors_ = lay_out(std::move(tensors));
  const std::string text = header_text(tensors_, metadata);
  std::string field(8, '\0');
  for (std::size_t i = 0; i < field.size(); ++i) {
    field[i] = static_cast<char>(text.size() >> (8 * i) & 0xff);
  }
  const std::string header = field + text;
  file_bytes_ = header.size();
  for (TensorInfo& info : tensors_) {
    file_bytes_ += info.bytes();
    info.begin += header.size();
    info.end += header.size();
  }
  out_->reserve(file_bytes_);
  out_->append(std::as_bytes(std::span(header)));
  skip_full();
}

// Steps over tensors that miss no byte, such as empty ones.
void SafetensorsWriter::skip_full() {
  while (current_ < tensors_.size() && written_ == tensors_[current_].bytes()) {
    ++current_;
    written_ = 0;
  }
}

void SafetensorsWriter::write(
    std::string_view name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  FETTLE_ASSERT(current_ < tensors_.size());
  const TensorInfo& info = tensors_[current_];
  FETTLE_ASSERT(info.name == name);
  FETTLE_ASSERT(bytes.size() <= info.bytes() - written_);
  out_->write_at(info.begin + written_, bytes);
  written_ += bytes.size();
  skip_full();
}

void SafetensorsWriter::finish() {
  FETTLE_ASSERT(current_ == tensors_.size());
  out_->close();
}

}  // namespace fettle::io
