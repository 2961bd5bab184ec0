// SPDX-License-Identifier: Apache-2.0
// Weights whose codes lie in 32-bit words, by the tool that wrote them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string>

#include "core/error.h"
#include "model/weights/code_words.h"
#include "model/weights/coded_parts.h"

namespace fettle::model {
namespace {

using Shape = CodedParts::Shape;

std::string module_of(const std::string& name) {
  constexpr std::string_view kWeight = ".weight";
  return name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size())
                                 : name;
}

std::string integer_name(std::string_view tool, const CodedMatrix& m) {
  return m.block_cols >= m.cols
             ? fmt::format("int{} of {}, a scale a row", m.bits, tool)
             : fmt::format(
                   "int{} of {}, groups of {}", m.bits, tool, m.block_cols);
}

// The first of `bits` in which codes of `count` columns take `words` words.
std::int64_t bits_of(
    std::int64_t count,
    std::int64_t words,
    const std::vector<std::int64_t>& bits) {
  const auto found = std::ranges::find_if(
      bits, [&](std::int64_t b) { return words_for(count, b) == words; });
  return found == bits.end() ? 0 : *found;
}

[[noreturn]] void refuse_codes(
    const io::TensorInfo& codes, const WantedWeight& wanted) {
  refuse_part(
      codes.name,
      fmt::format(
          "has shape [{}], which holds no codes of [{}] weights, as "
          "'quantization_config' of config.json has them",
          fmt::join(codes.shape, ", "),
          fmt::join(wanted.shape, ", ")));
}

CodedMatrix matrix_of(const WantedWeight& wanted, const io::TensorInfo& codes) {
  CodedMatrix m{.rows = wanted.shape[0], .cols = wanted.shape[1]};
  m.codes = whole(codes);
  return m;
}

// Scales [groups, rows] in groups of the scheme's, or, where each column says
// its group, in as many as there are.
void set_input_groups(
    const CodedParts& parts,
    const StoredSource& source,
    const std::string& module,
    CodedMatrix& m) {
  const std::int64_t group = source.schemes.front().block_cols;
  m.block_cols = group > 0 ? group : std::max<std::int64_t>(m.cols, 1);
  m.grid_rows = m.rows;
  m.grid_cols = blocks_in(m.cols, m.block_cols);
  m.inputs_first = true;
  const io::TensorInfo& scales =
      parts.require(module + ".scales", PartKind::kScales);
  if (const auto* groups = parts.find(module + ".g_idx")) {
    m.groups = parts.require(
        groups->name, PartKind::kWords, {m.cols}, "for a group a column");
    if (scales.shape.size() == 2) m.grid_cols = scales.shape[0];
  }
  require_shape(
      scales,
      {m.grid_cols, m.rows},
      fmt::format("for groups of {} inputs", m.block_cols));
  m.scales = whole(scales);
}

}  // namespace

std::optional<CodedMatrix> find_packed_words(
    const CodedParts& parts,
    const StoredSource& source,
    const WantedWeight& wanted) {
  const std::string& name = wanted.name;
  if (parts.find(name + "_packed") == nullptr) return std::nullopt;
  const auto& codes = parts.require(name + "_packed", PartKind::kWords);
  CodedMatrix m = matrix_of(wanted, codes);
  m.order = CodeOrder::kRowWords;
  std::vector<CodeScheme> fitting;
  for (const CodeScheme& scheme : source.schemes) {
    if (codes.shape == Shape{m.rows, words_for(m.cols, scheme.bits)}) {
      fitting.push_back(scheme);
    }
  }
  if (fitting.empty()) refuse_codes(codes, wanted);
  m.bits = fitting.front().bits;
  set_grid(parts.require(name + "_scale", PartKind::kScales), fitting, m);
  m.zero = static_cast<double>(1 << (m.bits - 1));
  if (const auto* zeros = parts.find(name + "_zero_point")) {
    m.zeros = parts.require(
        zeros->name,
        PartKind::kWords,
        {words_for(m.rows, m.bits), m.grid_cols},
        "for codes packed by rows");
    m.zero_order = ZeroOrder::kRowWords;
    m.zero = 0;
  }
  if (const auto* groups = parts.find(name + "_g_idx")) {
    m.groups = parts.require(
        groups->name, PartKind::kWords, {m.cols}, "for a group a column");
  }
  m.name = integer_name("compressed-tensors", m);
  return m;
}

std::optional<CodedMatrix> find_gptq_words(
    const CodedParts& parts,
    const StoredSource& source,
    const WantedWeight& wanted) {
  const std::string module = module_of(wanted.name);
  if (parts.find(module + ".qweight") == nullptr) return std::nullopt;
  const auto& codes = parts.require(module + ".qweight", PartKind::kWords);
  CodedMatrix m = matrix_of(wanted, codes);
  m.order = CodeOrder::kInputWords;
  const bool flat = codes.shape.size() == 2 && codes.shape[1] == m.rows;
  // Modules may differ in bits.
  m.bits = flat ? bits_of(
                      m.cols,
                      codes.shape[0],
                      {source.schemes.front().bits, 2, 3, 4, 8})
                : 0;
  if (m.bits == 0) refuse_codes(codes, wanted);
  set_input_groups(parts, source, module, m);
  m.zeros = parts.require(
      module + ".qzeros",
      PartKind::kWords,
      {m.grid_cols, words_for(m.rows, m.bits)},
      "for a zero point a scale");
  m.zero_order = ZeroOrder::kInputWords;
  m.zero = source.zeros_less_one ? 1 : 0;
  m.name = integer_name("GPTQ", m);
  return m;
}

std::optional<CodedMatrix> find_awq_words(
    const CodedParts& parts,
    const StoredSource& source,
    const WantedWeight& wanted) {
  const std::string module = module_of(wanted.name);
  if (parts.find(module + ".qweight") == nullptr) return std::nullopt;
  const auto& codes = parts.require(module + ".qweight", PartKind::kWords);
  CodedMatrix m = matrix_of(wanted, codes);
  m.order = CodeOrder::kOutputWords;
  m.bits = 4;
  if (m.rows % 8 != 0 || codes.shape != Shape{m.cols, m.rows / 8}) {
    refuse_codes(codes, wanted);
  }
  set_input_groups(parts, source, module, m);
  m.zero = 8;  // of codes without zero points
  if (const auto* zeros = parts.find(module + ".qzeros")) {
    m.zeros = parts.require(
        zeros->name,
        PartKind::kWords,
        {m.grid_cols, m.rows / 8},
        "for a zero point a scale");
    m.zero_order = ZeroOrder::kAwqWords;
    m.zero = 0;
  }
  m.name = integer_name("AWQ", m);
  return m;
}

}  // namespace fettle::model
