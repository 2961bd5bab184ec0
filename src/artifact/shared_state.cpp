// SPDX-License-Identifier: Apache-2.0
#include "artifact/shared_state.h"

#include <string>
#include <utility>

namespace fettle::artifact {
namespace {

Json described(const RunState& state) {
  Json tensors = Json::array();
  for (const auto& [name, tensor] : state.tensors) {
    tensors.push_back(
        {name,
         static_cast<int>(tensor.scalar_type()),
         std::vector<std::int64_t>(tensor.sizes().vec())});
  }
  return {
      {"step", state.step},
      {"identity", state.identity},
      {"cursor", state.cursor},
      {"micro_batch_tokens", state.micro_batch_tokens},
      {"found", state.found},
      {"unit", state.unit},
      {"tensors", std::move(tensors)}};
}

RunState made_from(const Json& json) {
  RunState state{
      .step = json["step"],
      .identity = json["identity"],
      .cursor = json["cursor"],
      .micro_batch_tokens = json["micro_batch_tokens"],
      .tensors = {},
      .found = json["found"],
      .unit = json["unit"]};
  for (const Json& tensor : json["tensors"]) {
    state.tensors[tensor[0].get<std::string>()] = at::empty(
        tensor[2].get<std::vector<std::int64_t>>(),
        static_cast<at::ScalarType>(tensor[1].get<int>()));
  }
  return state;
}

}  // namespace

void share_state(ranks::Group& group, std::optional<RunState>& state) {
  if (group.size() == 1) return;
  const bool leads = group.rank() == 0;
  const Json json = Json::parse(ranks::broadcast_text(
      group, (leads && state ? described(*state) : Json()).dump(), 0));
  if (json.is_null()) {
    state.reset();
    return;
  }
  if (!leads) state = made_from(json);
  for (auto& [name, tensor] : state->tensors) {
    tensor = tensor.contiguous();
    if (tensor.numel() > 0) group.broadcast(tensor, 0);
  }
}

}  // namespace fettle::artifact
