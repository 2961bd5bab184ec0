// SPDX-License-Identifier: Apache-2.0
#include "export/hf_code/hf_code_export.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "artifact/config_text.h"
#include "artifact/tensor_file.h"
#include "core/error.h"
#include "export/codes/code_layout.h"
#include "export/exported_weights.h"
#include "export/hf_code/hf_code_layout.h"
#include "export/value_check.h"
#include "io/checkpoint.h"
#include "io/checkpoint_writer.h"
#include "io/file.h"
#include "model/family/text_part.h"

namespace fettle::exporter {
namespace {

// Stock classes have no heads that predict further tokens.
artifact::Mtp without_heads(
    const model::ModelReader& reader, artifact::Mtp asked) {
  const bool has_heads = std::ranges::any_of(
      reader.carried(), [](const model::CarriedTensor& carried) {
        return carried.kind == model::CarriedKind::kMtp;
      });
  if (!has_heads || asked != artifact::Mtp::kKeep) return artifact::Mtp::kDrop;
  throw UserError(
      "mtp",
      "keep",
      "transformers' classes have no head that predicts further tokens, and "
      "format hf-code uses them; leave it out with --mtp drop");
}

class HfCodeExport {
 public:
  HfCodeExport(
      const model::ModelReader& reader,
      const ExportOptions& options,
      std::filesystem::path folder)
      : reader_(reader),
        options_(options),
        folder_(std::move(folder)),
        config_(exported_config(reader.config(), options)),
        weights_(reader, config_, options),
        carried_(reader, config_, without_heads(reader, options.mtp)),
        tensors_(hf_code_tensors(config_, [this](const model::WeightId& id) {
          return weights_.form(id);
        })) {}

  ExportResult run() {
    carried_.note(options_.reporter, "export");
    ExportResult result;
    result.before = artifact::stored_size(reader_);
    result.after = artifact::model_size(
        config_,
        [&](const model::WeightId& id) { return weights_.form(id); },
        carried_.bytes());
    result.narrowed = weights_.narrows();
    weights_.require_finite();
    artifact::copy_companions(reader_.folder(), folder_);
    write_json();
    io::write_file(folder_ / kHfCodeFile, hf_code_module(config_));
    write_weights();
    result.max_error = check();
    return result;
  }

 private:
  void write_json() const {
    Json json = hf_code_config(config_);
    carried_.change(json);
    json.erase("quantization_config");
    io::write_file(folder_ / "config.json", artifact::config_text(json));
  }

  at::Tensor piece_of(
      const HfCodeTensor& tensor,
      const std::vector<model::WeightId>& piece) const {
    std::vector<at::Tensor> parts;
    for (const model::WeightId& id : piece) {
      parts.push_back(weights_.tensor(id));
      FETTLE_ASSERT(
          artifact::stored_type(parts.back().scalar_type(), tensor.spec.name) ==
          tensor.spec.dtype);
    }
    return hf_code_piece(config_, piece, parts);
  }

  void write_weights() const {
    std::vector<io::TensorSpec> specs;
    for (const HfCodeTensor& tensor : tensors_) specs.push_back(tensor.spec);
    std::ranges::copy(carried_.specs(), std::back_inserter(specs));
    io::CheckpointWriter writer(
        folder_, std::move(specs), {.max_shard_bytes = options_.shard_bytes});
    Progress progress(
        options_.reporter, "export", writer.total_bytes(), "bytes");
    for (const HfCodeTensor& tensor : tensors_) {
      for (const auto& piece : tensor.pieces) {
        const at::Tensor whole = piece_of(tensor, piece);
        writer.write(tensor.spec.name, artifact::tensor_bytes(whole));
        progress.advance(whole.nbytes());
      }
    }
    carried_.write(
        [&](const std::string& name, std::span<const std::byte> bytes) {
          writer.write(name, bytes);
          progress.advance(bytes.size());
        });
    writer.finish();
  }

  // Largest difference to the source's own values, relative to the largest.
  double check() const {
    const io::Checkpoint checkpoint = io::Checkpoint::open(folder_);
    ValueCheck values(folder_, false);
    double rounded = 0;
    for (const HfCodeTensor& tensor : tensors_) {
      const auto& name = tensor.spec.name;
      const at::ScalarType type =
          artifact::scalar_type(tensor.spec.dtype, name);
      const at::Tensor found = read_tensor(checkpoint, name, type);
      std::vector<at::Tensor> pieces, meant;
      for (const auto& piece : tensor.pieces) {
        pieces.push_back(piece_of(tensor, piece));
        std::vector<at::Tensor> parts;
        for (const auto& id : piece) parts.push_back(reader_.read(id));
        meant.push_back(hf_code_piece(config_, piece, parts));
      }
      values.compare(name, found, at::cat(pieces).view(found.sizes()));
      rounded = std::max(
          rounded, relative_error(found, at::cat(meant).view(found.sizes())));
    }
    return rounded;
  }

  const model::ModelReader& reader_;
  const ExportOptions& options_;
  std::filesystem::path folder_;
  model::ModelConfig config_;
  ExportedWeights weights_;
  artifact::CarriedCopy carried_;
  std::vector<HfCodeTensor> tensors_;
};

}  // namespace

ExportResult export_hf_code(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder) {
  require_hf_code(reader.config());
  return HfCodeExport(reader, options, folder).run();
}

}  // namespace fettle::exporter
