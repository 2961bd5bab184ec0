// SPDX-License-Identifier: Apache-2.0
// Slots against the members of a layer.
#include "model/weights/weight_slot.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <utility>
#include <vector>

#include "model/weights/weight_visit.h"

using namespace fettle::model;

namespace {

std::vector<Role> layer_roles() {
  std::vector<Role> roles;
  for (int role = static_cast<int>(Role::kInputNorm);
       role <= static_cast<int>(Role::kDenseDown);
       ++role) {
    roles.push_back(static_cast<Role>(role));
  }
  return roles;
}

}  // namespace

TEST_CASE("every tensor of a layer is the slot of some role") {
  LayerWeights weights;
  for (const Role role : layer_roles()) {
    weight_slot(weights, role) = at::empty({0});
  }
  std::vector<at::Tensor> tensors;
  for_each_tensor(weights, [&](at::Tensor& t) { tensors.push_back(t); });
  // Gate and up of the experts, the shared and the dense MLP are one each, and
  // so are their biases.
  CHECK(tensors.size() == layer_roles().size() - 4);
  for (const Role role : layer_roles()) {
    INFO(role_name(role));
    const at::Tensor& slot = weight_slot(std::as_const(weights), role);
    CHECK(std::ranges::count_if(tensors, [&](const at::Tensor& tensor) {
            return tensor.is_same(slot);
          }) == 1);
  }
}

TEST_CASE("no tensor of the attention lacks a slot") {
  const auto of_attention = std::ranges::count_if(
      weight_slots(), [weights = LayerWeights()](const auto& slot) mutable {
        const auto* begin = reinterpret_cast<std::byte*>(&weights.attention);
        const auto* at = reinterpret_cast<std::byte*>(&slot.tensor(weights));
        return at >= begin && at < begin + sizeof(AttentionWeights);
      });
  CHECK(of_attention == sizeof(AttentionWeights) / sizeof(at::Tensor));
}

TEST_CASE("a slot is the layer's own tensor of the role") {
  LayerWeights weights;
  const AttentionWeights& attention = weights.attention;
  const auto is_slot = [&](Role role, const at::Tensor& tensor) {
    return &weight_slot(weights, role) == &tensor;
  };
  CHECK(is_slot(Role::kInputNorm, weights.input_norm));
  CHECK(is_slot(Role::kRouter, weights.router));
  CHECK(is_slot(Role::kQProj, attention.q_proj));
  CHECK(is_slot(Role::kKvBProj, attention.kv_b_proj));
  CHECK(is_slot(Role::kExpertGate, weights.experts.gate_up));
  CHECK(is_slot(Role::kExpertUp, weights.experts.gate_up));
  CHECK(is_slot(Role::kExpertDown, weights.experts.down));
  CHECK(is_slot(Role::kExpertConstant, weights.experts.constant));
  CHECK(is_slot(Role::kSharedUp, weights.shared.gate_up));
  CHECK(is_slot(Role::kSharedDown, weights.shared.down));
  CHECK(is_slot(Role::kDenseGate, weights.dense.gate_up));
  CHECK(is_slot(Role::kDenseDown, weights.dense.down));
}
