// SPDX-License-Identifier: Apache-2.0
#include "model_folder.h"

#include <unistd.h>

#include <atomic>
#include <fstream>
#include <span>
#include <vector>

#include "io/checkpoint_writer.h"

namespace fettle::model::testing {
namespace {

namespace fs = std::filesystem;

io::DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kBFloat16:
      return io::DType::kBF16;
    case at::kHalf:
      return io::DType::kF16;
    case at::kByte:
      return io::DType::kU8;
    case at::kChar:
      return io::DType::kI8;
    case at::kInt:
      return io::DType::kI32;
    case at::kLong:
      return io::DType::kI64;
    case at::kFloat8_e4m3fn:
      return io::DType::kF8E4M3;
    case at::kFloat8_e8m0fnu:
      return io::DType::kF8E8M0;
    default:
      return io::DType::kF32;
  }
}

fs::path fresh_folder() {
  static std::atomic<int> count{0};
  const fs::path folder = fs::temp_directory_path() /
                          ("fettle-model-test-" + std::to_string(getpid()) +
                           "-" + std::to_string(count++));
  fs::create_directories(folder);
  return folder;
}

}  // namespace

ModelFolder::ModelFolder(const ModelConfig& config)
    : config_(config), json_(config_json(config)), folder_(fresh_folder()) {
  int seed = 0;
  for (const WeightId& id : model_weights(config)) {
    (*this)[id] = value(stored_shape(config, id), seed++);
  }
}

ModelFolder::~ModelFolder() { fs::remove_all(folder_); }

at::Tensor ModelFolder::value(
    const std::vector<std::int64_t>& shape, int seed) {
  std::int64_t numel = 1;
  for (const std::int64_t side : shape) numel *= side;
  return at::arange(numel, at::kFloat)
      .add(31 * seed)
      .remainder(251)
      .sub(125)
      .reshape(shape);
}

at::Tensor& ModelFolder::operator[](const WeightId& id) {
  return tensors_[weight_name(config_, id)];
}

at::Tensor ModelFolder::pack(
    const WeightId& id, const kernels::QuantGrid& grid) {
  const std::string name = weight_name(config_, id);
  const kernels::PackedMatrix packed = kernels::pack(
      kernels::quantize({tensors_.at(name).to(at::kFloat).clone(), {}}, grid),
      grid);
  erase(name);
  tensors_[name + std::string(kPackedSuffix)] = to_stored(packed);
  at::Tensor values = at::empty({packed.rows, packed.cols}, at::kFloat);
  kernels::unpack_rows(packed, 0, values);
  return values;
}

void ModelFolder::rename(const std::function<std::string(std::string)>& to) {
  std::map<std::string, at::Tensor> renamed;
  for (auto& [name, tensor] : tensors_) renamed[to(name)] = tensor;
  tensors_ = std::move(renamed);
}

void ModelFolder::fuse(std::int64_t layer, const std::string& prefix) {
  std::vector<at::Tensor> gate_up, down;
  for (std::int64_t e = 0; e < config_.layers[layer].num_experts(); ++e) {
    const WeightId gate{Role::kExpertGate, layer, e};
    const WeightId up{Role::kExpertUp, layer, e};
    const WeightId down_id{Role::kExpertDown, layer, e};
    gate_up.push_back(at::cat({(*this)[gate], (*this)[up]}));
    down.push_back((*this)[down_id]);
    for (const WeightId& id : {gate, up, down_id}) {
      erase(weight_name(config_, id));
    }
  }
  (*this)[prefix + "gate_up_proj"] = at::stack(gate_up);
  (*this)[prefix + "down_proj"] = at::stack(down);
}

const fs::path& ModelFolder::write() {
  std::vector<io::TensorSpec> specs;
  for (const auto& [name, tensor] : tensors_) {
    specs.push_back({name, dtype_of(tensor), tensor.sizes().vec()});
  }
  io::CheckpointWriter writer(folder_, specs);
  for (const io::TensorSpec& spec : specs) {
    const at::Tensor dense = tensors_[spec.name].contiguous();
    writer.write(
        spec.name,
        {static_cast<const std::byte*>(dense.data_ptr()), dense.nbytes()});
  }
  writer.finish();
  std::ofstream(folder_ / "config.json") << json_.dump();
  return folder_;
}

}  // namespace fettle::model::testing
