// SPDX-License-Identifier: Apache-2.0
#include "artifact/model_writer.h"

#include <fmt/format.h>

#include <optional>
#include <utility>
#include <vector>

#include "artifact/tensor_file.h"
#include "core/error.h"
#include "io/checkpoint_writer.h"
#include "io/file.h"

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

}  // namespace

void write_model(
    const ModelWriterInput& input, const std::filesystem::path& folder) {
  const std::vector<model::WeightId> ids = model::model_weights(input.config);
  std::vector<io::TensorSpec> specs;
  specs.reserve(ids.size());
  for (const model::WeightId& id : ids) {
    std::string name = model::weight_name(input.config, id);
    const io::DType type = stored_type(input.dtype(id), name);
    specs.push_back(
        {std::move(name), type, model::weight_shape(input.config, id)});
  }
  copy_companions(input.source.folder(), folder);
  io::write_file(
      folder / "config.json", model::config_json(input.config).dump(2) + "\n");
  io::CheckpointWriter writer(folder, specs);
  SilentReporter silent;
  Progress progress(
      input.reporter != nullptr ? *input.reporter : silent,
      input.label,
      writer.total_bytes(),
      "bytes");
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const at::Tensor tensor = input.tensor(ids[i]).contiguous();
    check_tensor(tensor, specs[i]);
    writer.write(specs[i].name, tensor_bytes(tensor));
    progress.advance(tensor.nbytes());
  }
  writer.finish();
  write_manifest(input.source.folder(), folder, input.record);
}

}  // namespace fettle::artifact
