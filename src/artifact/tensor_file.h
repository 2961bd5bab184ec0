// SPDX-License-Identifier: Apache-2.0
// Named tensors in one safetensors file: what stages keep beside a model
// (scores, optimizer state, adapters). Loading checks every value that could
// make a later stage go wrong in silence.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "io/dtype.h"
#include "io/safetensors.h"

namespace fettle::artifact {

using TensorMap = std::map<std::string, at::Tensor>;

struct TensorFile {
  TensorMap tensors;  // any dtype below, any shape
  io::Metadata metadata;
};

// The stored type of a tensor's type and back. Throw UserError (the subject is
// `subject`) where there is none.
io::DType stored_type(at::ScalarType type, const std::string& subject);
at::ScalarType scalar_type(io::DType type, const std::string& subject);

// The bytes of a contiguous CPU tensor (InternalError otherwise).
std::span<const std::byte> tensor_bytes(const at::Tensor& tensor);
std::span<std::byte> writable_bytes(at::Tensor& tensor);

// Whether a floating-point tensor holds neither NaN nor infinity.
bool is_finite(const at::Tensor& tensor);

// The values of a tensor that is of the meta device, where others have them: of
// the same type and shape.
using FetchTensor =
    std::function<at::Tensor(const std::string& name, const at::Tensor& like)>;

// Writes `file` to `path`, tensors in the order of their names. Device tensors
// are copied to the host one at a time, and those of the meta device fetched.
void save_tensors(
    const std::filesystem::path& path,
    const TensorFile& file,
    const FetchTensor& fetch = {});

struct LoadTensorsOptions {
  // Refuse a floating-point tensor that holds a NaN or an infinity.
  bool finite = false;
  // Called with each tensor, in the order of the file; says whether to keep it.
  std::function<bool(const std::string& name, const at::Tensor& tensor)> keep =
      {};
};

// Reads a file whole. Throws UserError when it is no safetensors file, a type
// is unknown, or a value is not finite and that was asked for.
TensorFile load_tensors(
    const std::filesystem::path& path, const LoadTensorsOptions& options = {});

}  // namespace fettle::artifact
