// SPDX-License-Identifier: Apache-2.0
#include "model/weights/packed_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "io/checksum.h"
#include "kernels/trit_code.h"
#include "kernels/trit_table.h"

namespace fettle::model {
namespace {

using kernels::PackedKind;
using kernels::PackedMatrix;

constexpr std::array<std::byte, 4> kMagic{
    std::byte{'F'}, std::byte{'P'}, std::byte{'K'}, std::byte{'1'}};
constexpr std::int64_t kChecksumPlace = 32;

[[noreturn]] void damaged(const std::string& subject, std::string_view what) {
  throw UserError(
      "weights",
      subject,
      fmt::format("{}; the file is damaged, copy or make it anew", what));
}

template <typename T>
T take(std::span<const std::byte> bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

template <typename T>
void put(std::span<std::byte> bytes, std::size_t at, std::int64_t value) {
  FETTLE_ASSERT(value >= 0 && value <= std::numeric_limits<T>::max());
  const T narrow = static_cast<T>(value);
  std::memcpy(bytes.data() + at, &narrow, sizeof(T));
}

bool is_coded(PackedKind kind) {
  return kind == PackedKind::kTernaryWords ||
         kind == PackedKind::kTernaryHuffman;
}

std::span<std::byte> bytes_in(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

std::uint64_t checksum_of(std::span<const std::byte> stored) {
  const std::uint64_t rest = io::checksum64(stored.subspan(kPackedHeaderBytes));
  std::array<std::byte, kChecksumPlace + sizeof(rest)> both;
  std::memcpy(both.data(), stored.data(), kChecksumPlace);
  std::memcpy(both.data() + kChecksumPlace, &rest, sizeof(rest));
  return io::checksum64(both);
}

// What a file has of a coded matrix beside its codes. The matrix holds them
// made ready for use; encoding is deterministic: encoding again gives the same
// bytes.
struct CodeParts {
  at::Tensor table, lengths;  // uint8; undefined of other kinds
};

CodeParts code_parts(const PackedMatrix& m) {
  if (!is_coded(m.kind)) return {};
  const kernels::TritCode code =
      kernels::encode_trits(m.kind, kernels::decode_trits(m, 0, m.rows));
  FETTLE_ASSERT(code.codes.equal(m.codes));
  return {code.table, kernels::encode_row_lengths(code.row_begin)};
}

PackedHeader header_of(const PackedMatrix& m, const CodeParts& parts) {
  return {
      .kind = m.kind,
      .bits = m.bits,
      .rows = m.rows,
      .cols = m.cols,
      .group = m.group,
      .zeros = m.zeros.defined(),
      .table_bytes = parts.table.defined() ? parts.table.numel() : 0,
      .lengths_bytes = parts.lengths.defined() ? parts.lengths.numel() : 0,
      .codes_bytes = m.codes.numel()};
}

void write_header(const PackedHeader& h, std::span<std::byte> stored) {
  std::memcpy(stored.data(), kMagic.data(), kMagic.size());
  put<std::uint8_t>(stored, 4, static_cast<std::int64_t>(h.kind));
  put<std::uint8_t>(stored, 5, h.bits);
  put<std::uint8_t>(stored, 6, h.zeros ? 1 : 0);
  put<std::uint8_t>(stored, 7, 0);
  put<std::uint32_t>(stored, 8, h.rows);
  put<std::uint32_t>(stored, 12, h.cols);
  put<std::uint32_t>(stored, 16, h.group);
  put<std::uint32_t>(stored, 20, h.table_bytes);
  put<std::uint32_t>(stored, 24, h.lengths_bytes);
  put<std::uint32_t>(stored, 28, h.codes_bytes);
  const std::uint64_t sum = checksum_of(stored);
  std::memcpy(stored.data() + kChecksumPlace, &sum, sizeof(sum));
}

bool has_known_shape(const PackedHeader& h) {
  const bool ints = h.kind == PackedKind::kInt;
  const bool bits =
      ints ? h.bits == 2 || h.bits == 3 || h.bits == 4 || h.bits == 8
           : h.bits == 0 && !h.zeros;
  return bits && (h.group > 0 || h.cols == 0);
}

// Whether the codes of a kind whose rows have one length are as long as that.
bool has_its_codes(const PackedHeader& h) {
  if (is_coded(h.kind)) return true;
  return h.table_bytes == 0 && h.lengths_bytes == 0 &&
         h.codes_bytes ==
             h.rows * kernels::packed_row_bytes(h.kind, h.bits, h.cols);
}

}  // namespace

std::int64_t PackedHeader::groups() const {
  return group == 0 ? 0 : (cols + group - 1) / group;
}

std::int64_t PackedHeader::scales_bytes() const { return 2 * rows * groups(); }

std::int64_t PackedHeader::zeros_bytes() const {
  if (!zeros) return 0;
  return rows * kernels::packed_row_bytes(PackedKind::kInt, bits, groups());
}

std::int64_t PackedHeader::bytes() const {
  return kPackedHeaderBytes + scales_bytes() + zeros_bytes() + table_bytes +
         lengths_bytes + codes_bytes;
}

// As stored, since most of it is shared with what was read; and zeros by the
// byte, where rows begin, and the table made ready.
std::int64_t memory_bytes(const PackedHeader& h) {
  const std::int64_t zeros = h.zeros ? h.rows * h.groups() : 0;
  const std::int64_t rows =
      is_coded(h.kind) ? 8 * (h.rows + 1) + kernels::kTritWordsBytes : 0;
  return h.bytes() + zeros + rows;
}

std::string packed_name(const PackedHeader& header) {
  switch (header.kind) {
    case PackedKind::kInt:
      return fmt::format(
          "int{}{}", header.bits, header.zeros ? " with zeros" : "");
    case PackedKind::kTernary:
      return "ternary";
    default:
      return "ternary-coded";
  }
}

PackedHeader parse_packed_header(
    std::span<const std::byte> bytes,
    std::int64_t total,
    const std::string& subject) {
  if (std::ssize(bytes) < kPackedHeaderBytes ||
      std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    damaged(subject, "expected a packed weight, found no header of one");
  }
  const auto u32 = [&](std::size_t at) {
    return static_cast<std::int64_t>(take<std::uint32_t>(bytes, at));
  };
  const auto kind = take<std::uint8_t>(bytes, 4);
  if (kind > static_cast<std::uint8_t>(PackedKind::kTernaryHuffman)) {
    damaged(subject, fmt::format("packing {} is not known", kind));
  }
  PackedHeader header{
      .kind = static_cast<PackedKind>(kind),
      .bits = take<std::uint8_t>(bytes, 5),
      .rows = u32(8),
      .cols = u32(12),
      .group = u32(16),
      .zeros = take<std::uint8_t>(bytes, 6) == 1,
      .table_bytes = u32(20),
      .lengths_bytes = u32(24),
      .codes_bytes = u32(28),
      .checksum = take<std::uint64_t>(bytes, kChecksumPlace)};
  const bool flags =
      take<std::uint8_t>(bytes, 6) <= 1 && take<std::uint8_t>(bytes, 7) == 0;
  // Sizes of 32 bits: their products can't overflow 64.
  if (!flags || !has_known_shape(header) || !has_its_codes(header) ||
      header.bytes() != total) {
    damaged(
        subject,
        fmt::format(
            "the sizes in its header don't agree with its {} bytes", total));
  }
  return header;
}

std::int64_t stored_bytes(const PackedMatrix& matrix) {
  return header_of(matrix, code_parts(matrix)).bytes();
}

at::Tensor to_stored(const PackedMatrix& m) {
  kernels::check_packed(m);
  const CodeParts parts = code_parts(m);
  const PackedHeader header = header_of(m, parts);
  at::Tensor stored = at::empty({header.bytes()}, at::kByte);
  const std::span<std::byte> bytes = bytes_in(stored);
  std::int64_t at = kPackedHeaderBytes;
  const auto append = [&](const at::Tensor& part) {
    const at::Tensor whole = part.contiguous();
    const auto from = bytes_in(whole);
    std::ranges::copy(from, bytes.begin() + at);
    at += std::ssize(from);
  };
  append(m.scales);
  if (m.zeros.defined()) {
    append(kernels::pack_codes(PackedKind::kInt, m.bits, m.zeros));
  }
  if (parts.table.defined()) {
    append(parts.table);
    append(parts.lengths);
  }
  append(m.codes);
  FETTLE_ASSERT(at == header.bytes());
  write_header(header, bytes);
  return stored;
}

namespace {

// Zeros as the products take them: one byte each.
at::Tensor unpacked_zeros(const PackedHeader& h, const at::Tensor& packed) {
  PackedMatrix zeros{
      .kind = PackedKind::kInt,
      .bits = h.bits,
      .rows = h.rows,
      .cols = h.groups(),
      .group = std::max<std::int64_t>(h.groups(), 1),
      .codes = packed,
      .scales = at::ones({h.rows, 1}, at::kBFloat16),
      .zeros = at::zeros({h.rows, 1}, at::kByte)};
  if (zeros.cols == 0) return at::empty({h.rows, 0}, at::kByte);
  at::Tensor values = at::empty({h.rows, h.groups()}, at::kFloat);
  kernels::unpack_rows(zeros, 0, values);
  return values.to(at::kByte);
}

// Checks every row too: what bytes with a right checksum say is still to be
// trusted only then.
void read_code(
    const at::Tensor& table,
    const at::Tensor& lengths,
    const std::string& subject,
    PackedMatrix& m) {
  try {
    m.table = kernels::prepare_trit_table(m.kind, table);
    m.row_begin = kernels::decode_row_lengths(lengths, m.rows, m.codes.numel());
    kernels::check_packed(m);
    kernels::check_trit_rows(m, 0, m.rows);
  } catch (const UserError& error) {
    damaged(subject, error.what());
  }
}

}  // namespace

PackedMatrix from_stored(const at::Tensor& stored, const std::string& subject) {
  const std::span<const std::byte> bytes = bytes_in(stored);
  const PackedHeader h = parse_packed_header(bytes, std::ssize(bytes), subject);
  if (checksum_of(bytes) != h.checksum) {
    damaged(subject, "its checksum differs from its bytes'");
  }
  std::int64_t at = kPackedHeaderBytes;
  const auto part = [&](std::int64_t size) {
    at += size;
    return stored.narrow(0, at - size, size);
  };
  PackedMatrix m{
      .kind = h.kind,
      .bits = h.bits,
      .rows = h.rows,
      .cols = h.cols,
      .group = h.group};
  m.scales =
      part(h.scales_bytes()).view(at::kBFloat16).view({h.rows, h.groups()});
  if (h.zeros) m.zeros = unpacked_zeros(h, part(h.zeros_bytes()));
  const at::Tensor table = part(h.table_bytes);
  const at::Tensor lengths = part(h.lengths_bytes);
  m.codes = part(h.codes_bytes);
  if (is_coded(h.kind)) read_code(table, lengths, subject, m);
  if (!at::isfinite(m.scales).all().item<bool>()) {
    damaged(subject, "a scale is NaN or infinite");
  }
  if (!is_coded(h.kind)) kernels::check_packed(m);
  return m;
}

}  // namespace fettle::model
