// SPDX-License-Identifier: Apache-2.0
#include "model/weights/coded_form.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "core/error.h"
#include "model/weights/code_words.h"

namespace fettle::model {
namespace {

using Levels = std::array<float, 256>;

// A sign, two bits of exponent and one of mantissa (E2M1).
float fp4_value(std::uint8_t code) {
  constexpr std::array<float, 8> kValues{0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  const float value = kValues[code & 7];
  return (code & 8) != 0 ? -value : value;
}

Levels levels_of(CodeLevel level) {
  Levels levels;
  for (std::size_t code = 0; code < levels.size(); ++code) {
    const auto byte = static_cast<std::uint8_t>(code);
    switch (level) {
      case CodeLevel::kUnsigned:
        levels[code] = static_cast<float>(byte);
        break;
      case CodeLevel::kSigned:
        levels[code] = static_cast<float>(static_cast<std::int8_t>(byte));
        break;
      case CodeLevel::kFp8:
        levels[code] = static_cast<float>(
            c10::Float8_e4m3fn(byte, c10::Float8_e4m3fn::from_bits()));
        break;
      case CodeLevel::kFp4:
        levels[code] = fp4_value(byte);
        break;
    }
  }
  return levels;
}

at::Tensor scales_as_float(const at::Tensor& bytes, io::DType type) {
  switch (type) {
    case io::DType::kF32:
      return bytes.view(at::kFloat);
    case io::DType::kBF16:
      return bytes.view(at::kBFloat16).to(at::kFloat);
    case io::DType::kF16:
      return bytes.view(at::kHalf).to(at::kFloat);
    default: {
      // A power of two: 2^(byte - 127), 255 for NaN.
      at::Tensor scales = at::empty(bytes.sizes(), at::kFloat);
      const auto* from = bytes.const_data_ptr<std::uint8_t>();
      auto* to = scales.data_ptr<float>();
      for (std::int64_t i = 0; i < bytes.numel(); ++i) {
        to[i] = static_cast<float>(
            c10::Float8_e8m0fnu(from[i], c10::Float8_e8m0fnu::from_bits()));
      }
      return scales;
    }
  }
}

at::Tensor read_words(
    const io::Checkpoint& checkpoint,
    const StoredSpan& span,
    std::int64_t rows) {
  return read_span(checkpoint, span).view(at::kInt).view({rows, -1});
}

// Zero points as [rows, groups] fp32; undefined where one stands for all.
at::Tensor read_zeros(const io::Checkpoint& checkpoint, const CodedMatrix& m) {
  const std::int64_t groups = m.grid_cols;
  at::Tensor zeros;
  switch (m.zero_order) {
    case ZeroOrder::kNone:
      return zeros;
    case ZeroOrder::kBytes:
      zeros = read_span(checkpoint, m.zeros)
                  .view(at::kChar)
                  .view({m.grid_rows, groups});
      break;
    case ZeroOrder::kRowWords: {
      const std::int64_t words = words_for(m.rows, m.bits);
      const at::Tensor turned =
          read_words(checkpoint, m.zeros, words).t().contiguous();
      zeros = dense_codes(turned, m.rows, m.bits).t();
      break;
    }
    case ZeroOrder::kInputWords:
      zeros =
          dense_codes(read_words(checkpoint, m.zeros, groups), m.rows, m.bits)
              .t();
      break;
    case ZeroOrder::kAwqWords:
      zeros = awq_codes(read_words(checkpoint, m.zeros, groups)).t();
      break;
  }
  return (zeros.to(at::kFloat) + m.zero).contiguous();
}

// The rows of a matrix within those of its file, U8 [rows, bytes of a row].
at::Tensor own_rows(
    const at::Tensor& bytes, std::int64_t row_bytes, std::int64_t step) {
  const std::int64_t rows = (bytes.numel() / row_bytes + step - 1) / step;
  return bytes.as_strided({rows, row_bytes}, {step * row_bytes, 1})
      .contiguous();
}

at::Tensor read_scale_bytes(
    const io::Checkpoint& checkpoint, const CodedMatrix& m) {
  const at::Tensor bytes = read_span(checkpoint, m.scales);
  return m.row_step == 1 ? bytes
                         : own_rows(bytes, m.grid_cols, m.row_step).flatten();
}

// E8M0 has one NaN.
void require_numbers(const at::Tensor& scales, const CodedMatrix& m) {
  if (m.level != CodeLevel::kFp4 || !scales.eq(255).any().item<bool>()) return;
  throw UserError(
      "weights",
      m.scales.tensor->name,
      "holds scales of 255, which are NaN. Perhaps a damaged file?");
}

at::Tensor split_nibbles(const at::Tensor& bytes) {
  const std::int64_t count = bytes.numel();
  at::Tensor codes = at::empty({bytes.size(0), 2 * bytes.size(1)}, at::kByte);
  const auto* from = bytes.const_data_ptr<std::uint8_t>();
  auto* to = codes.data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < count; ++i) {
    to[2 * i] = from[i] & 15;
    to[2 * i + 1] = from[i] >> 4;
  }
  return codes;
}

// What all rows of a matrix share.
class RowDecoder {
 public:
  RowDecoder(const io::Checkpoint& checkpoint, const CodedMatrix& m)
      : checkpoint_(checkpoint), m_(m), levels_(levels_of(m.level)) {
    const at::Tensor bytes = read_scale_bytes(checkpoint, m);
    require_numbers(bytes, m);
    const at::Tensor scales = scales_as_float(bytes, m.scales.tensor->dtype);
    scales_ = m.inputs_first
                  ? scales.view({m.grid_cols, m.grid_rows}).t().contiguous()
                  : scales.view({m.grid_rows, m.grid_cols});
    zeros_ = read_zeros(checkpoint, m);
    if (m.groups.tensor != nullptr) read_groups();
  }

  void operator()(std::int64_t first, const at::Tensor& out) const {
    FETTLE_ASSERT(out.is_contiguous() && out.scalar_type() == at::kFloat);
    const at::Tensor codes = read_codes(first, out.size(0));
    const auto* code = codes.const_data_ptr<std::uint8_t>();
    auto* to = out.data_ptr<float>();
    for (std::int64_t r = 0; r < out.size(0); ++r) {
      const std::int64_t row = (m_.row_begin + first + r) / m_.block_rows;
      if (group_of_.empty()) {
        decode_blocks(row, code + r * m_.cols, to + r * m_.cols);
      } else {
        decode_groups(row, code + r * m_.cols, to + r * m_.cols);
      }
    }
  }

 private:
  void read_groups() {
    const at::Tensor groups = read_span(checkpoint_, m_.groups).view(at::kInt);
    const auto* from = groups.const_data_ptr<std::int32_t>();
    group_of_.assign(from, from + groups.numel());
    const auto outside = std::ranges::find_if(
        group_of_,
        [&](std::int32_t group) { return group < 0 || group >= m_.grid_cols; });
    if (outside == group_of_.end()) return;
    throw UserError(
        "weights",
        m_.groups.tensor->name,
        fmt::format(
            "names group {}, expected one of {}; the file is damaged",
            *outside,
            m_.grid_cols));
  }

  // A part of the codes: `rows` rows of `bytes` each, `step` apart.
  struct Strip {
    std::int64_t offset = 0, rows = 0, bytes = 0, step = 0;
  };

  at::Tensor read_strip(const Strip& strip) const {
    at::Tensor result = at::empty({strip.rows, strip.bytes}, at::kByte);
    auto* to = static_cast<std::byte*>(result.data_ptr());
    const bool whole = strip.bytes == strip.step;
    const std::int64_t reads = whole ? 1 : strip.rows;
    const std::int64_t each = whole ? strip.rows * strip.bytes : strip.bytes;
    for (std::int64_t i = 0; i < reads; ++i) {
      checkpoint_.read_range(
          m_.codes.tensor->name,
          m_.codes.offset +
              static_cast<std::uint64_t>(strip.offset + i * strip.step),
          {to + i * each, static_cast<std::size_t>(each)});
    }
    return result;
  }

  // uint8 [n, cols].
  at::Tensor read_codes(std::int64_t first, std::int64_t n) const {
    constexpr std::int64_t kWord = 4;
    const std::int64_t along = words_for(m_.cols, m_.bits);
    switch (m_.order) {
      case CodeOrder::kBytes:
        return read_strip({first * m_.cols, n, m_.cols, m_.cols});
      case CodeOrder::kRowWords: {
        const std::int64_t bytes = kWord * along;
        return dense_codes(
            read_strip({first * bytes, n, bytes, bytes}).view(at::kInt),
            m_.cols,
            m_.bits);
      }
      case CodeOrder::kInputWords: {
        const at::Tensor strip =
            read_strip({kWord * first, along, kWord * n, kWord * m_.rows});
        return dense_codes(
            strip.view(at::kInt).t().contiguous(), m_.cols, m_.bits);
      }
      case CodeOrder::kOutputWords: {
        constexpr std::int64_t kEach = 8;
        const std::int64_t begin = first / kEach;
        const std::int64_t end = (first + n + kEach - 1) / kEach;
        const at::Tensor strip = read_strip(
            {kWord * begin,
             m_.cols,
             kWord * (end - begin),
             kWord * m_.rows / kEach});
        return awq_codes(strip.view(at::kInt))
            .narrow(1, first - begin * kEach, n)
            .t()
            .contiguous();
      }
      case CodeOrder::kNibbles: {
        const std::int64_t bytes = m_.cols / 2;
        const std::int64_t step = bytes * m_.row_step;
        return split_nibbles(read_strip({first * step, n, bytes, step}));
      }
    }
    throw InternalError("codes in no known order");
  }

  void decode_blocks(
      std::int64_t row, const std::uint8_t* code, float* out) const {
    const float* scale = scales_.const_data_ptr<float>() + row * m_.grid_cols;
    const float* zeros =
        zeros_.defined() ? zeros_.const_data_ptr<float>() + row * m_.grid_cols
                         : nullptr;
    for (std::int64_t begin = 0; begin < m_.cols; begin += m_.block_cols) {
      const std::int64_t end = std::min(begin + m_.block_cols, m_.cols);
      const std::int64_t g = begin / m_.block_cols;
      const float zero =
          zeros != nullptr ? zeros[g] : static_cast<float>(m_.zero);
      for (std::int64_t c = begin; c < end; ++c) {
        out[c] = (levels_[code[c]] - zero) * scale[g];
      }
    }
  }

  void decode_groups(
      std::int64_t row, const std::uint8_t* code, float* out) const {
    const float* scale = scales_.const_data_ptr<float>() + row * m_.grid_cols;
    const float* zeros =
        zeros_.defined() ? zeros_.const_data_ptr<float>() + row * m_.grid_cols
                         : nullptr;
    for (std::int64_t c = 0; c < m_.cols; ++c) {
      const auto g = static_cast<std::size_t>(group_of_[c]);
      const float zero =
          zeros != nullptr ? zeros[g] : static_cast<float>(m_.zero);
      out[c] = (levels_[code[c]] - zero) * scale[g];
    }
  }

  const io::Checkpoint& checkpoint_;
  const CodedMatrix& m_;
  Levels levels_;
  at::Tensor scales_;                   // [grid_rows, grid_cols] fp32
  at::Tensor zeros_;                    // the same, or undefined
  std::vector<std::int32_t> group_of_;  // by column; empty: in order
};

}  // namespace

std::vector<StoredSpan> CodedForm::spans() const {
  std::vector<StoredSpan> spans{matrix_.codes, matrix_.scales};
  for (const StoredSpan& span : {matrix_.zeros, matrix_.groups}) {
    if (span.tensor != nullptr) spans.push_back(span);
  }
  return spans;
}

std::int64_t CodedForm::bytes() const {
  const CodedMatrix& m = matrix_;
  if (m.row_step == 1) return StoredForm::bytes();
  return m.rows * (m.cols * m.bits / 8) + m.grid_rows * m.grid_cols;
}

StoredForm::Rows CodedForm::open(const io::Checkpoint& checkpoint) const {
  if (matrix_.rows * matrix_.cols == 0) {
    return [](std::int64_t, const at::Tensor&) {};
  }
  const auto decoder = std::make_shared<const RowDecoder>(checkpoint, matrix_);
  return [decoder](std::int64_t first, const at::Tensor& out) {
    (*decoder)(first, out);
  };
}

std::optional<BlockGrid> CodedForm::blocks() const {
  if (!matrix_.blocks) return std::nullopt;
  return BlockGrid{
      matrix_.block_rows,
      matrix_.block_cols,
      matrix_.scales.tensor->dtype,
      matrix_.bits};
}

StoredForm::BlockBytes CodedForm::read_blocks(
    const io::Checkpoint& checkpoint) const {
  const CodedMatrix& m = matrix_;
  FETTLE_ASSERT(m.blocks);
  const at::Tensor scales = read_scale_bytes(checkpoint, m);
  require_numbers(scales, m);
  return {
      own_rows(read_span(checkpoint, m.codes), m.cols * m.bits / 8, m.row_step),
      scales.view({m.grid_rows, -1})};
}

}  // namespace fettle::model
