// SPDX-License-Identifier: Apache-2.0
#include "quant/site_exchange.h"

#include <utility>

#include "core/json.h"
#include "model/weights/packed_weight.h"

namespace fettle::quant {
namespace {

Json described(
    std::size_t site, const QuantizedWeight& weight, std::int64_t bytes) {
  return {
      {"site", site},
      {"role", static_cast<int>(weight.id.role)},
      {"layer", weight.id.layer},
      {"expert", weight.id.expert},
      {"tokens", weight.tokens},
      {"scarce", weight.scarce},
      {"error", weight.error},
      {"energy", weight.energy},
      {"bytes", bytes}};
}

QuantizedWeight made_from(const Json& json, const at::Tensor& stored) {
  const model::WeightId id{
      static_cast<model::Role>(json["role"].get<int>()),
      json["layer"].get<std::int64_t>(),
      json["expert"].get<std::int64_t>()};
  return {
      .id = id,
      .matrix =
          model::from_stored(stored, std::string(model::role_name(id.role))),
      .tokens = json["tokens"],
      .scarce = json["scarce"],
      .error = json["error"],
      .energy = json["energy"]};
}

}  // namespace

void gather_at_rank_0(
    ranks::Group& group, std::vector<std::vector<QuantizedWeight>>& results) {
  if (group.size() == 1) return;
  Json list = Json::array();
  std::vector<at::Tensor> codes{at::empty({0}, at::kByte)};
  for (std::size_t s = 0; s < results.size(); ++s) {
    for (const QuantizedWeight& weight : results[s]) {
      codes.push_back(model::to_stored(weight.matrix));
      list.push_back(described(s, weight, codes.back().numel()));
    }
  }
  const auto lists = group.gather(list.dump());
  const at::Tensor all = ranks::rows_at_rank_0(group, at::cat(codes));
  if (group.rank() != 0) return;
  std::int64_t begin = 0;
  for (std::size_t r = 0; r < lists.size(); ++r) {
    for (const Json& one : Json::parse(lists[r])) {
      const std::int64_t bytes = one["bytes"];
      // Of its own, so that it lies as it would alone.
      const at::Tensor stored = all.narrow(0, begin, bytes).clone();
      begin += bytes;
      if (r == 0) continue;  // made here
      results[one["site"].get<std::size_t>()].push_back(made_from(one, stored));
    }
  }
}

void share(ranks::Group& group, StoredTensors& tensors) {
  if (group.size() == 1) return;
  const bool leads = group.rank() == 0;
  Json list = Json::array();
  std::vector<at::Tensor> codes{at::empty({0}, at::kByte)};
  for (const auto& [name, tensor] : tensors) {
    list.push_back({name, tensor.numel()});
    codes.push_back(tensor);
  }
  list = Json::parse(ranks::broadcast_text(group, list.dump(), 0));
  std::int64_t total = 0;
  for (const Json& one : list) total += one[1].get<std::int64_t>();
  const at::Tensor all = leads ? at::cat(codes) : at::empty({total}, at::kByte);
  if (total > 0) group.broadcast(all, 0);
  if (leads) return;
  tensors.clear();
  std::int64_t begin = 0;
  for (const Json& one : list) {
    const std::int64_t bytes = one[1];
    tensors[one[0].get<std::string>()] = all.narrow(0, begin, bytes).clone();
    begin += bytes;
  }
}

}  // namespace fettle::quant
