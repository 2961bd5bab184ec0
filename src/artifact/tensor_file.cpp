// SPDX-License-Identifier: Apache-2.0
#include "artifact/tensor_file.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "core/error.h"
#include "io/file.h"

namespace fettle::artifact {
namespace {

constexpr std::array<std::pair<at::ScalarType, io::DType>, 10> kTypes{{
    {at::kBool, io::DType::kBool},
    {at::kByte, io::DType::kU8},
    {at::kChar, io::DType::kI8},
    {at::kShort, io::DType::kI16},
    {at::kInt, io::DType::kI32},
    {at::kLong, io::DType::kI64},
    {at::kBFloat16, io::DType::kBF16},
    {at::kHalf, io::DType::kF16},
    {at::kFloat, io::DType::kF32},
    {at::kDouble, io::DType::kF64},
}};

void check_layout(const at::Tensor& tensor) {
  FETTLE_ASSERT(tensor.defined() && tensor.device().is_cpu());
  FETTLE_ASSERT(tensor.is_contiguous());
}

void check_finite(const at::Tensor& tensor, const std::string& subject) {
  if (!tensor.is_floating_point() || is_finite(tensor)) return;
  throw UserError(
      "tensors",
      subject,
      "expected finite numbers, found a NaN or an infinity; make the file "
      "anew");
}

}  // namespace

io::DType stored_type(at::ScalarType type, const std::string& subject) {
  for (const auto& [scalar, stored] : kTypes) {
    if (scalar == type) return stored;
  }
  throw UserError(
      "tensors",
      subject,
      fmt::format("element type {} can't be stored", c10::toString(type)));
}

at::ScalarType scalar_type(io::DType type, const std::string& subject) {
  for (const auto& [scalar, stored] : kTypes) {
    if (stored == type) return scalar;
  }
  throw UserError(
      "tensors",
      subject,
      fmt::format("element type {} is not supported here", io::name_of(type)));
}

std::span<const std::byte> tensor_bytes(const at::Tensor& tensor) {
  check_layout(tensor);
  return {
      static_cast<const std::byte*>(tensor.const_data_ptr()),
      static_cast<std::size_t>(tensor.nbytes())};
}

std::span<std::byte> writable_bytes(at::Tensor& tensor) {
  check_layout(tensor);
  return {
      static_cast<std::byte*>(tensor.mutable_data_ptr()),
      static_cast<std::size_t>(tensor.nbytes())};
}

// NaN and infinity show in the extremes.
bool is_finite(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return true;
  const auto [least, most] = at::aminmax(tensor);
  return std::isfinite(least.item<double>()) &&
         std::isfinite(most.item<double>());
}

void save_tensors(
    const std::filesystem::path& path,
    const TensorFile& file,
    const FetchTensor& fetch) {
  std::vector<io::TensorSpec> specs;
  for (const auto& [name, tensor] : file.tensors) {
    specs.push_back(
        {name, stored_type(tensor.scalar_type(), name), tensor.sizes().vec()});
  }
  io::SafetensorsWriter writer(
      io::create_file(path), std::move(specs), file.metadata);
  for (const auto& [name, tensor] : file.tensors) {
    const at::Tensor values = tensor.is_meta() ? fetch(name, tensor) : tensor;
    const at::Tensor host = values.detach().cpu().contiguous();
    writer.write(name, tensor_bytes(host));
  }
  writer.finish();
}

TensorFile load_tensors(
    const std::filesystem::path& path, const LoadTensorsOptions& options) {
  const auto file = io::open_file(path);
  const auto header = io::SafetensorsFile::parse(*file);
  TensorFile result;
  result.metadata = header.metadata();
  for (const io::TensorInfo& info : header.tensors()) {
    const std::string subject = path.string() + ": " + info.name;
    at::Tensor tensor =
        at::empty(info.shape, at::dtype(scalar_type(info.dtype, subject)));
    file->read_at(info.begin, writable_bytes(tensor));
    if (options.finite) check_finite(tensor, subject);
    if (options.keep && !options.keep(info.name, tensor)) continue;
    result.tensors.emplace(info.name, std::move(tensor));
  }
  return result;
}

}  // namespace fettle::artifact
