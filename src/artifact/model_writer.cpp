// SPDX-License-Identifier: Apache-2.0
#include "artifact/model_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "artifact/tensor_file.h"
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
  io::write_file(folder / "config.json", json.dump(2) + "\n");
}

void write_model(
    const ModelWriterInput& input, const std::filesystem::path& folder) {
  const std::vector<model::WeightId> ids = model::model_weights(input.config);
  std::vector<io::TensorSpec> specs;
  specs.reserve(ids.size());
  bool packed = false, blocks = false;
  for (const model::WeightId& id : ids) {
    const model::WeightForm form = input.form(id);
    packed = packed || form.packed();
    blocks = blocks || form.blocks;
    std::ranges::move(
        tensor_specs(input.config, id, form), std::back_inserter(specs));
  }
  const CarriedCopy carried(input.source, input.config, input.mtp);
  if (input.reporter != nullptr && !carried.note().empty()) {
    input.reporter->note(input.label + ": " + carried.note());
  }
  std::ranges::copy(carried.specs(), std::back_inserter(specs));
  copy_companions(input.source.folder(), folder);
  write_config(
      folder,
      input.config,
      packed ? StoredAs::kPacked
             : (blocks ? StoredAs::kAsInSource : StoredAs::kPlain),
      carried);
  io::CheckpointWriterOptions options;
  options.stem = stem_of(input.config, packed);
  io::CheckpointWriter writer(folder, specs, options);
  Progress progress(input.reporter, input.label, writer.total_bytes(), "bytes");
  auto spec = specs.cbegin();
  for (const model::WeightId& id : ids) {
    at::Tensor tensor = input.tensor(id).contiguous();
    const bool parts = input.form(id).blocks.has_value();
    if (!parts && tensor.sizes() == model::weight_shape(input.config, id)) {
      tensor = tensor.view(spec->shape);
    }
    std::span<const std::byte> bytes = tensor_bytes(tensor);
    progress.advance(bytes.size());
    if (!parts) check_tensor(tensor, *spec);
    check_values(tensor, spec->name, input.label);
    for (std::size_t part = 0; part < (parts ? 2u : 1u); ++part, ++spec) {
      FETTLE_ASSERT(spec->bytes() <= bytes.size());
      writer.write(spec->name, bytes.first(spec->bytes()));
      bytes = bytes.subspan(spec->bytes());
    }
    FETTLE_ASSERT(bytes.empty());
  }
  carried.write([&](const std::string& name, std::span<const std::byte> bytes) {
    writer.write(name, bytes);
    progress.advance(bytes.size());
  });
  writer.finish();
  write_manifest(input.source.folder(), folder, input.record);
}

}  // namespace fettle::artifact
