// SPDX-License-Identifier: Apache-2.0
// The decoder layer within a head that predicts further tokens. Loaders build
// it from the main layers' expert count and width, so that where these were
// cut its own experts must be cut by the same counts.
//
// The head is not run on data. Its neurons are ranked by the product of the
// norms of their gate, up and down weights, its experts by the sum over their
// neurons. A draft is only a proposal that the model itself checks: a worse
// head costs speed and changes no text.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/weights/model_reader.h"

namespace fettle::artifact {

// A tensor to write: made when it is asked for.
struct MadeTensor {
  io::TensorSpec spec;
  std::function<at::Tensor()> make;
};

class HeadLayer {
 public:
  // Experts, their width and the shared experts' width that a layer has.
  struct Shape {
    std::int64_t experts = 0;
    std::int64_t width = 0;
    std::int64_t shared = 0;
    bool operator==(const Shape&) const = default;
  };

  // `tensors` are a head's; the layer's names are those of the family's rows
  // behind `prefix`, such as "model.layers.61." or "mtp.layers.0.".
  HeadLayer(
      const model::ModelReader& reader,
      const std::vector<const io::TensorInfo*>& tensors,
      std::string prefix);

  // No experts: nothing of it depends on the main layers' shape.
  const Shape& shape() const { return shape_; }
  bool fits(const Shape& wanted) const;
  // Why it can't be brought to `wanted`; empty: it can.
  std::string obstacle(const Shape& wanted) const;
  // Its tensors that change with the shape, as `wanted` has them.
  std::vector<MadeTensor> cut(const Shape& wanted) const;
  // Whether cut() makes a tensor of the head, perhaps under another name.
  bool replaces(const std::string& name) const;

 private:
  struct Found {
    const io::TensorInfo* tensor = nullptr;
    model::Role role = model::Role::kRouter;
    std::int64_t expert = -1;
    bool stacked = false;
  };
  struct Choice {
    std::vector<std::int64_t> experts;               // kept
    std::vector<std::vector<std::int64_t>> neurons;  // kept, of each of them
  };

  void find(const io::TensorInfo& tensor);
  void read_shape();
  at::Tensor read(const io::TensorInfo& tensor) const;
  // One expert's matrix of `role`, however it is stored.
  at::Tensor expert(model::Role role, std::int64_t expert) const;
  std::int64_t inputs_of_neuron() const;  // gate and up, or up alone
  Choice choose(const Shape& wanted) const;
  at::Tensor cut_expert(
      const Choice& choice,
      model::Role role,
      std::int64_t kept,
      std::int64_t width) const;
  // An expert's gate, if it has one, and up.
  at::Tensor cut_inputs(
      const Choice& choice, std::int64_t kept, std::int64_t width) const;
  at::Tensor cut_stack(
      const Choice& choice, model::Role role, std::int64_t width) const;

  const model::ModelReader& reader_;
  std::string prefix_;
  std::map<std::string, Found> found_;  // by name
  Shape shape_;
  bool even_ = true;  // all experts have one shape
};

// The prefixes of the decoder layers among a head's tensors.
std::vector<std::string> head_layers(
    const model::ModelReader& reader,
    const std::vector<const io::TensorInfo*>& tensors);

}  // namespace fettle::artifact
