// SPDX-License-Identifier: Apache-2.0
#include "artifact/model_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "artifact/config_text.h"
#include "artifact/tensor_file.h"
#include "artifact/written_tensors.h"
#include "core/error.h"
#include "io/checkpoint.h"
#include "io/checkpoint_writer.h"
#include "io/file.h"
#include "model/family/text_part.h"

namespace fettle::artifact {
namespace {

void check_tensor(const at::Tensor& tensor, const io::TensorSpec& spec) {
  if (tensor.sizes().vec() == spec.shape &&
      stored_type(tensor.scalar_type(), spec.name) == spec.dtype) {
    return;
  }
  throw InternalError(fmt::format(
      "{}: declared as [{}] {}, given as [{}] {}",
      spec.name,
      fmt::join(spec.shape, ", "),
      io::name_of(spec.dtype),
      fmt::join(tensor.sizes(), ", "),
      c10::toString(tensor.scalar_type())));
}

// Other loaders find only what they can run.
std::string stem_of(const model::ModelConfig& config, bool packed) {
  if (packed) return std::string(io::kPackedStem);
  const bool own = model::config_json(config).contains("fettle");
  return own ? std::string(io::kOwnStem) : io::CheckpointWriterOptions{}.stem;
}

// A NaN that is passed on shows up far from where it came from.
void check_values(
    const at::Tensor& tensor,
    const std::string& name,
    const std::string& stage) {
  if (!tensor.is_floating_point() || is_finite(tensor)) return;
  throw UserError(
      stage,
      name,
      "expected finite values, found NaN or infinity; nothing was written. "
      "Perhaps a damaged file, or a tuning that diverged?");
}

}  // namespace

std::vector<io::TensorSpec> tensor_specs(
    const model::ModelConfig& config,
    const model::WeightId& id,
    const model::WeightForm& form) {
  if (!form.blocks) return {tensor_spec(config, id, form)};
  const std::vector<std::int64_t> shape = model::weight_shape(config, id);
  const std::string name = model::weight_name(config, id);
  if (form.blocks->bits < 8) return mxfp4_specs(name, shape);
  return {
      {name, io::DType::kF8E4M3, shape},
      {name + std::string(model::kBlockScaleSuffix),
       form.blocks->scale_type,
       form.blocks->grid(shape)}};
}

io::TensorSpec tensor_spec(
    const model::ModelConfig& config,
    const model::WeightId& id,
    const model::WeightForm& form) {
  std::string name = model::weight_name(config, id);
  if (form.packed()) {
    name += model::kPackedSuffix;
    return {std::move(name), io::DType::kU8, {form.packed_bytes}};
  }
  const io::DType type = stored_type(form.dtype, name);
  return {std::move(name), type, model::stored_shape(config, id)};
}

void write_config(
    const std::filesystem::path& folder,
    const model::ModelConfig& config,
    StoredAs stored,
    const CarriedCopy& carried) {
  Json json = model::config_json(config);
  carried.change(json);
  if (stored != StoredAs::kAsInSource) {
    json.erase("quantization_config");
    // Some models of several parts say it of their text.
    model::text_part(json).erase("quantization_config");
  }
  if (stored == StoredAs::kPacked) {
    json["quantization_config"] = {{"quant_method", "fettle"}, {"format", 1}};
  }
  io::write_file(folder / "config.json", config_text(json));
}

namespace {

// Writes the tensors of a model in their order.
class TensorWriter {
 public:
  TensorWriter(
      const ModelWriterInput& input,
      io::CheckpointWriter& writer,
      Progress& progress)
      : input_(input), writer_(writer), progress_(progress) {}

  void write(const WrittenTensor& tensor) {
    scales_.clear();
    for (const auto& piece : tensor.pieces) {
      if (!tensor.stacked) {
        write_weight(tensor, piece.front());
      } else if (tensor.specs.size() > 1) {
        write_blocks(tensor, piece);
      } else {
        write_piece(tensor, piece);
      }
    }
    for (const at::Tensor& scales : scales_) {
      put(tensor.specs.back().name, tensor_bytes(scales));
    }
  }

 private:
  at::Tensor given(const model::WeightId& id, const std::string& name) const {
    const at::Tensor tensor = input_.tensor(id).contiguous();
    check_values(tensor, name, input_.label);
    return tensor;
  }

  void write_weight(const WrittenTensor& written, const model::WeightId& id) {
    const std::vector<io::TensorSpec>& specs = written.specs;
    at::Tensor tensor = given(id, specs.front().name);
    const bool parts = specs.size() > 1;
    if (!parts && tensor.sizes() == model::weight_shape(input_.config, id)) {
      tensor = tensor.view(specs.front().shape);
    }
    if (!parts) check_tensor(tensor, specs.front());
    std::span<const std::byte> bytes = tensor_bytes(tensor);
    for (const io::TensorSpec& spec : specs) {
      FETTLE_ASSERT(spec.bytes() <= bytes.size());
      put(spec.name, bytes.first(spec.bytes()));
      bytes = bytes.subspan(spec.bytes());
    }
    FETTLE_ASSERT(bytes.empty());
  }

  void write_piece(
      const WrittenTensor& written, const std::vector<model::WeightId>& piece) {
    const io::TensorSpec& spec = written.specs.front();
    std::vector<at::Tensor> parts;
    for (const model::WeightId& id : piece) {
      parts.push_back(given(id, spec.name));
      FETTLE_ASSERT(
          stored_type(parts.back().scalar_type(), spec.name) == spec.dtype);
    }
    const auto& row = model::weight_row(input_.config, piece.front().role);
    const at::Tensor whole = stacked_piece(row, parts).contiguous();
    put(spec.name, tensor_bytes(whole));
  }

  // Codes now; all scales of the stack come behind all codes.
  void write_blocks(
      const WrittenTensor& written, const std::vector<model::WeightId>& piece) {
    std::vector<at::Tensor> codes, scales;
    for (const model::WeightId& id : piece) {
      const auto shape = model::weight_shape(input_.config, id);
      const std::int64_t bytes = input_.form(id).blocks->code_bytes(shape);
      const at::Tensor both = given(id, written.specs.front().name);
      codes.push_back(both.narrow(0, 0, bytes).view({shape[0], -1}));
      scales.push_back(
          both.narrow(0, bytes, both.numel() - bytes).view({shape[0], -1}));
    }
    const auto& row = model::weight_row(input_.config, piece.front().role);
    put(written.specs.front().name,
        tensor_bytes(stacked_outputs(row, codes).contiguous()));
    scales_.push_back(stacked_outputs(row, scales).contiguous());
  }

  void put(const std::string& name, std::span<const std::byte> bytes) {
    progress_.advance(bytes.size());
    writer_.write(name, bytes);
  }

  const ModelWriterInput& input_;
  io::CheckpointWriter& writer_;
  Progress& progress_;
  std::vector<at::Tensor> scales_;  // of the stack that is being written
};

// In which form the weights of a model lie.
StoredAs stored_as(const ModelWriterInput& input) {
  StoredAs stored = StoredAs::kPlain;
  for (const model::WeightId& id : model::model_weights(input.config)) {
    const model::WeightForm form = input.form(id);
    if (form.packed()) return StoredAs::kPacked;
    if (form.blocks) stored = StoredAs::kAsInSource;
  }
  return stored;
}

}  // namespace

void write_model(
    const ModelWriterInput& input, const std::filesystem::path& folder) {
  const StoredAs stored = stored_as(input);
  io::CheckpointWriterOptions options{.max_shard_bytes = input.shard_bytes};
  const std::string stock = options.stem;
  options.stem = stem_of(input.config, stored == StoredAs::kPacked);
  const std::vector<WrittenTensor> tensors = written_tensors(
      input.config, {.form = input.form, .stock = options.stem == stock});
  std::vector<io::TensorSpec> specs;
  for (const WrittenTensor& tensor : tensors) {
    std::ranges::copy(tensor.specs, std::back_inserter(specs));
  }
  const CarriedCopy carried(input.source, input.config, input.mtp);
  carried.note(input.reporter, input.label);
  std::ranges::copy(carried.specs(), std::back_inserter(specs));
  copy_companions(input.source.folder(), folder);
  write_config(folder, input.config, stored, carried);
  io::CheckpointWriter writer(folder, specs, options);
  Progress progress(input.reporter, input.label, writer.total_bytes(), "bytes");
  TensorWriter written(input, writer, progress);
  for (const WrittenTensor& tensor : tensors) written.write(tensor);
  carried.write([&](const std::string& name, std::span<const std::byte> bytes) {
    writer.write(name, bytes);
    progress.advance(bytes.size());
  });
  writer.finish();
  write_manifest(input.source.folder(), folder, input.record);
}

}  // namespace fettle::artifact
