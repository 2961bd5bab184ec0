// SPDX-License-Identifier: Apache-2.0
// Reads a Hugging Face model folder layer by layer. Opening it checks every
// header, name, shape and dtype; no weight is read before it is asked for.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/carried_tensors.h"
#include "model/weights/layer_weights.h"
#include "model/weights/loaded_bytes.h"
#include "model/weights/stored_form.h"
#include "model/weights/weight_form.h"

namespace fettle::model {

struct WeightCopy;
class WeightIndex;

class ModelReader {
 public:
  // Throws UserError on what is no model folder (see model_folder.h), a missing
  // tensor, a wrong shape, an unsupported dtype, or a tensor that the family's
  // table does not know.
  explicit ModelReader(const std::filesystem::path& folder);

  const ModelConfig& config() const { return config_; }
  const io::Checkpoint& checkpoint() const { return *checkpoint_; }
  const std::filesystem::path& folder() const { return folder_; }
  std::string name() const;  // of the folder, for people
  // Tensors beside the weights that change nothing and are not read.
  const std::vector<std::string>& left_out() const;
  // Tensors beside the weights that models written from this one keep.
  const std::vector<CarriedTensor>& carried() const;
  std::int64_t carried_bytes() const;
  // Of the computation and the weights, not of their files: fingerprint.cpp.
  std::string fingerprint() const;

  // One tensor in the canonical 2-D shape of its role (a fused expert is cut
  // out of its stack) and the type it is stored in; a packed weight's values,
  // exactly, in fp32; one that another tool coded (coded_finder.h) in the type
  // that loaders give it. Thread-safe.
  at::Tensor read(const WeightId& id) const;
  // The same in fp32, `rows` rows (of a vector: values) at a time, so that no
  // more than those are held, and a packed weight's bytes.
  using Rows = std::function<void(std::int64_t first, const at::Tensor& rows)>;
  void read_rows(
      const WeightId& id, std::int64_t rows, const Rows& visit) const;
  at::ScalarType dtype(const WeightId& id) const;

  // How it is written where it is carried over, and what is written then: as
  // read(), or of a packed weight the bytes, U8.
  WeightForm form(const WeightId& id) const;
  WeightForms forms() const;  // of this reader, which must outlive them
  at::Tensor read_stored(const WeightId& id) const;
  kernels::PackedMatrix read_packed(const WeightId& id) const;
  // The header of a weight packed by Fettle; null for any other.
  const PackedHeader* packed_header(const WeightId& id) const;
  // How it is stored; null where it is plain.
  const StoredForm* stored_form(const WeightId& id) const;
  // Whether any weight is stored as another tool coded it.
  bool has_coded() const;
  // Bytes that it takes in its files.
  std::int64_t stored_bytes(const WeightId& id) const;

  // A layer in the forward pass's form, in the type and memory of `options`, on
  // the CPU; the router and its biases in fp32; packed weights stay packed.
  // Throws UserError when a weight is NaN or infinite, or packed and damaged.
  // Thread-safe.
  // Experts that are apart are read each time they are made, and the reader
  // must outlive them.
  LayerWeights read_layer(
      std::int64_t layer,
      at::TensorOptions options,
      bool experts_apart = false) const;
  // Embeddings, final norm or head, whole, in `type`; values as read_layer's.
  at::Tensor read_global(Role role, at::ScalarType type) const;
  // Rows `ids` [N], on the CPU, of such a matrix: [N, H] in `type`. Reads no
  // others where the matrix is plain.
  at::Tensor read_global_rows(
      Role role, const at::Tensor& ids, at::ScalarType type) const;

  // Throws UserError where the embeddings are the head, by config.json, and the
  // weights hold another head, which transformers would use.
  void check_tied_head() const;

 private:
  KeptPacked kept_packed(std::int64_t layer) const;
  WeightCopy copy_of(const WeightId& id, const at::Tensor& view) const;
  Mlp read_expert(
      std::int64_t layer, std::int64_t expert, at::TensorOptions options) const;

  std::filesystem::path folder_;
  ModelConfig config_;
  std::unique_ptr<io::Checkpoint> checkpoint_;
  std::shared_ptr<const WeightIndex> index_;
};

// Of the model as it lies, its plain weights computed in `type`.
LoadedBytes loaded_bytes(const ModelReader& reader, at::ScalarType type);

}  // namespace fettle::model
