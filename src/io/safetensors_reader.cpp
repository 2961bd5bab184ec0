// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "core/json_members.h"
#include "core/json_text.h"
#include "core/text_file.h"
#include "io/safetensors.h"
#include "io/tensor_size.h"

namespace fettle::io {
namespace {

constexpr std::string_view kStage = "safetensors";
constexpr std::string_view kMetadataKey = "__metadata__";
constexpr std::uint64_t kLengthBytes = 8;

[[noreturn]] void refuse(const InputFile& file, const std::string& why) {
  throw UserError(kStage, file.name(), why);
}

// Other files take the place of weights: pointers to them, pages that say why
// they can't be had.
void refuse_known_content(const InputFile& file) {
  std::string head(std::min<std::uint64_t>(file.size(), 64), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(head)));
  const std::string_view kind = kind_of_content(head);
  if (kind.empty()) return;
  refuse(file, fmt::format("expected safetensors, found {}", kind));
}

// The length field is checked against the file before a byte is allocated.
std::uint64_t header_length(const InputFile& file) {
  if (file.size() < kLengthBytes) {
    refuse(
        file,
        fmt::format(
            "expected at least {} bytes, found {}. Perhaps an incomplete "
            "download?",
            kLengthBytes,
            file.size()));
  }
  std::array<std::byte, kLengthBytes> field{};
  file.read_at(0, field);
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) {
    length |= static_cast<std::uint64_t>(field[i]) << (8 * i);
  }
  if (length > kMaxSafetensorsHeader) {
    refuse_known_content(file);
    refuse(
        file,
        fmt::format(
            "header length is {} bytes, expected at most {}; the file is "
            "damaged or no safetensors file",
            length,
            kMaxSafetensorsHeader));
  }
  if (length > file.size() - kLengthBytes) {
    refuse(
        file,
        fmt::format(
            "header length is {} bytes, but only {} follow. Perhaps an "
            "incomplete download?",
            length,
            file.size() - kLengthBytes));
  }
  return length;
}

std::uint64_t count_of(const JsonObject& entry, const Json& value) {
  constexpr std::uint64_t largest = INT64_MAX;
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > largest) {
    throw UserError(
        kStage,
        entry.subject(),
        "expected non-negative integers in shape and data_offsets, found " +
            shown(value));
  }
  return value.get<std::uint64_t>();
}

const Json& array_at(const JsonObject& entry, std::string_view key) {
  const Json& value = entry.at(key);
  if (!value.is_array()) entry.refuse(key, "must be a list");
  return value;
}

// One entry of the header; offsets become absolute.
TensorInfo parse_tensor(
    const InputFile& file,
    std::string name,
    const Json& json,
    std::uint64_t data_begin) {
  const JsonObject entry(
      json,
      std::string(kStage),
      fmt::format("{} tensor '{}'", file.name(), name));
  const std::string type = entry.string("dtype");
  const std::optional<DType> dtype = find_dtype(type);
  if (!dtype) {
    entry.refuse(
        "dtype",
        fmt::format(
            "is {}, which Fettle cannot read; convert the model to BF16, F16 "
            "or F32",
            type));
  }
  TensorInfo info{.name = std::move(name), .dtype = *dtype};
  for (const Json& size : array_at(entry, "shape")) {
    info.shape.push_back(static_cast<std::int64_t>(count_of(entry, size)));
  }
  const Json& offsets = array_at(entry, "data_offsets");
  if (offsets.size() != 2) entry.refuse("data_offsets", "must have 2 entries");
  const std::uint64_t begin = count_of(entry, offsets[0]);
  const std::uint64_t end = count_of(entry, offsets[1]);
  if (begin > end) entry.refuse("data_offsets", "ends before it begins");
  const auto bytes = byte_size(info.dtype, info.shape);
  if (!bytes) entry.refuse("shape", "holds more bytes than any file can");
  if (*bytes != end - begin) {
    entry.refuse(
        "data_offsets",
        fmt::format(
            "span {} bytes, but dtype and shape need {}", end - begin, *bytes));
  }
  info.begin = data_begin + begin;  // below 2^64: both are below 2^63
  info.end = data_begin + end;
  return info;
}

// Some writers say null for none.
Metadata parse_metadata(const InputFile& file, const Json& json) {
  if (json.is_null()) return {};
  const JsonObject object(
      json,
      std::string(kStage),
      fmt::format("{} {}", file.name(), kMetadataKey));
  Metadata metadata;
  for (const auto& [key, value] : json.items()) {
    metadata.emplace(key, object.string(key));
  }
  return metadata;
}

// With tensors in the order of their bytes, each must begin where the one
// before ended, and the last must end with the file.
void check_cover(
    const InputFile& file,
    const std::vector<TensorInfo>& tensors,
    std::uint64_t data_begin) {
  std::uint64_t reached = data_begin;
  for (const TensorInfo& info : tensors) {
    if (info.begin != reached) {
      refuse(
          file,
          fmt::format(
              "tensor '{}' begins at byte {}, expected {} where the one before "
              "ends: {}; the file is damaged",
              info.name,
              info.begin,
              reached,
              info.begin < reached ? "they overlap" : "a hole lies between"));
    }
    reached = info.end;
  }
  if (reached > file.size()) {
    refuse(
        file,
        fmt::format(
            "tensors end at byte {}, but the file at {}. Perhaps an incomplete "
            "download?",
            reached,
            file.size()));
  }
  if (reached < file.size()) {
    refuse(
        file,
        fmt::format(
            "{} bytes follow the last tensor, expected none; the file is "
            "damaged",
            file.size() - reached));
  }
}

}  // namespace

SafetensorsFile SafetensorsFile::parse(const InputFile& file) {
  const std::uint64_t length = header_length(file);
  std::string text(length, '\0');
  file.read_at(kLengthBytes, std::as_writable_bytes(std::span(text)));
  SafetensorsFile result;
  result.data_begin_ = kLengthBytes + length;
  const Json rest = parse_json_members(
      text, {kStage, file.name()}, [&](std::string& name, const Json& value) {
        if (name == kMetadataKey) {
          result.metadata_ = parse_metadata(file, value);
        } else {
          result.tensors_.push_back(
              parse_tensor(file, std::move(name), value, result.data_begin_));
        }
      });
  if (!rest.is_object()) refuse(file, "header is no JSON object");
  std::ranges::sort(result.tensors_, {}, [](const TensorInfo& info) {
    return std::tie(info.begin, info.end, info.name);
  });
  result.index_.reserve(result.tensors_.size());
  for (std::size_t i = 0; i < result.tensors_.size(); ++i) {
    const std::string& name = result.tensors_[i].name;
    if (!result.index_.emplace(name, i).second) {
      refuse(file, fmt::format("duplicate JSON key '{}'", name));
    }
  }
  check_cover(file, result.tensors_, result.data_begin_);
  return result;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace fettle::io
