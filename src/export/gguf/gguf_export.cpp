// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_export.h"

#include <algorithm>
#include <map>
#include <utility>

#include "artifact/tensor_file.h"
#include "core/error.h"
#include "export/codes/code_plan.h"
#include "export/exported_weights.h"
#include "export/gguf/gguf_metadata.h"
#include "export/gguf/gguf_tensors.h"
#include "export/gguf/gguf_tokenizer.h"
#include "export/value_check.h"

namespace fettle::exporter {
namespace {

using model::WeightId;

at::Tensor as_rows(const at::Tensor& tensor) {
  return tensor.dim() == 1 ? tensor.unsqueeze(0) : tensor;
}

at::ScalarType plain_scalar(BlockType type) {
  if (type == BlockType::kBF16) return at::kBFloat16;
  if (type == BlockType::kF16) return at::kHalf;
  FETTLE_ASSERT(type == BlockType::kF32);
  return at::kFloat;
}

class GgufExport {
 public:
  GgufExport(
      const model::ModelReader& reader,
      const ExportOptions& options,
      const std::filesystem::path& folder)
      : reader_(reader),
        options_(options),
        file_(folder / kGgufFile),
        plan_(plan_gguf(forms_of(reader), options)),
        weights_(reader, plan_.config, options) {}

  ExportResult run() {
    for (const PlannedTensor& tensor : plan_.tensors) {
      declared_.push_back(declared(plan_.config, tensor));
      count(tensor);
    }
    measure();
    weights_.require_finite();
    write();
    result_.max_error = check();
    return result_;
  }

  double check() const {
    const auto file = io::open_file(file_);
    const GgufHeader header = read_gguf(*file);
    FETTLE_ASSERT(header.tensors.size() == plan_.tensors.size());
    ValueCheck values(file_, options_.nearest);
    for (std::size_t i = 0; i < plan_.tensors.size(); ++i) {
      const PlannedTensor& tensor = plan_.tensors[i];
      const GgufTensor& found = header.tensors[i];
      FETTLE_ASSERT(found.name == tensor.name);
      FETTLE_ASSERT(found.sizes == declared(plan_.config, tensor).sizes);
      if (tensor.parts.empty()) continue;
      std::uint64_t at = header.data_begin + found.begin;
      for (const WeightId& id : tensor.parts) {
        const auto [rows, cols] = part_shape(plan_.config, id);
        std::vector<std::byte> bytes(rows * row_bytes(tensor.type, cols));
        file->read_at(at, bytes);
        at += bytes.size();
        values.compare(
            tensor.name,
            decode_blocks(
                static_cast<BlockType>(found.type), bytes, rows, cols),
            meant(tensor, id));
      }
    }
    return values.largest();
  }

 private:
  void count(const PlannedTensor& tensor) {
    if (tensor.parts.empty()) return;
    const auto [rows, cols] = part_shape(plan_.config, tensor.parts[0]);
    result_.types[std::string(block_name(tensor.type))] +=
        std::ssize(tensor.parts) * rows * cols;
    if (tensor.nearest) result_.rounded += std::ssize(tensor.parts);
  }

  void measure() {
    result_.after = artifact::model_size(
        plan_.config, [](const WeightId&) { return model::WeightForm{}; });
    result_.after.bytes = 0;
    for (const GgufTensor& tensor : declared_) {
      result_.after.bytes += static_cast<std::int64_t>(tensor.bytes);
    }
    result_.narrowed = weights_.narrows();
  }

  // The type of most of the experts' weights.
  std::uint32_t main_type() const {
    std::map<BlockType, std::uint64_t> bytes;
    for (std::size_t i = 0; i < declared_.size(); ++i) {
      const PlannedTensor& tensor = plan_.tensors[i];
      if (tensor.parts.empty() ||
          !model::is_expert_role(tensor.parts[0].role)) {
        continue;
      }
      bytes[tensor.type] += declared_[i].bytes;
    }
    return file_type(std::ranges::max_element(bytes, {}, [](const auto& b) {
                       return b.second;
                     })->first);
  }

  void write() {
    const std::size_t carried = reader_.carried().size();
    if (options_.reporter != nullptr && carried > 0) {
      options_.reporter->note(fmt::format(
          "export: left out {} tensors that are no weights of the language "
          "model ({} first); llama.cpp takes vision from a file of its own",
          carried,
          reader_.carried().front().tensor->name));
    }
    GgufKeys keys = gguf_shape_keys(
        plan_.config,
        std::filesystem::absolute(reader_.folder()).filename().string(),
        main_type());
    GgufKeys words =
        gguf_tokenizer_keys(reader_.folder(), plan_.config, options_);
    keys.insert(keys.end(), words.begin(), words.end());
    GgufWriter writer(io::create_file(file_), keys, declared_);
    Progress progress(
        options_.reporter, "export", writer.total_bytes(), "bytes");
    for (const PlannedTensor& tensor : plan_.tensors) {
      if (tensor.parts.empty()) {
        writer.write(tensor.name, artifact::tensor_bytes(tensor.values));
      }
      for (const WeightId& id : tensor.parts) {
        const at::Tensor stored = stored_part(tensor, id).contiguous();
        writer.write(tensor.name, artifact::tensor_bytes(stored));
        progress.advance(stored.nbytes());
      }
    }
    writer.finish();
  }

  at::Tensor stored_part(const PlannedTensor& tensor, const WeightId& id) {
    const auto [rows, cols] = part_shape(plan_.config, id);
    if (tensor.type == BlockType::kMXFP4) {
      return encode_mxfp4(
          reader_.stored_form(id)->read_blocks(reader_.checkpoint()));
    }
    const bool codes = block_weights(tensor.type) > 1;
    if (!codes || tensor.nearest) {
      const at::Tensor values = meant(tensor, id);
      return codes ? encode_q8_0(values) : values.to(plain_scalar(tensor.type));
    }
    CodeMatrix matrix = padded(source_codes(reader_, id), rows, cols);
    if (tensor.paired_heads > 0) {
      matrix = with_rows(matrix, paired_rows(rows, tensor.paired_heads));
    }
    const InexactWeight weight{
        model::weight_name(plan_.config, id),
        "has scales that the 16 bits of GGUF's blocks can't hold",
        "use compressed-tensors"};
    const double error = scale_error(matrix, at::kHalf);
    result_.rounded += is_rounded(error, options_.nearest, weight) ? 1 : 0;
    return encode_codes(tensor.type, matrix);
  }

  // The values of a part as they lie in the file.
  at::Tensor meant(const PlannedTensor& tensor, const WeightId& id) const {
    const at::Tensor rows = as_rows(weights_.meant(id));
    if (tensor.paired_heads == 0) return rows;
    return rows.index_select(0, paired_rows(rows.size(0), tensor.paired_heads));
  }

  const model::ModelReader& reader_;
  const ExportOptions& options_;
  std::filesystem::path file_;
  GgufPlan plan_;
  ExportedWeights weights_;
  std::vector<GgufTensor> declared_;
  ExportResult result_;
};

}  // namespace

ExportResult export_gguf(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder) {
  return GgufExport(reader, options, folder).run();
}

double check_gguf(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder) {
  return GgufExport(reader, options, folder).check();
}

}  // namespace fettle::exporter
