// SPDX-License-Identifier: Apache-2.0
#include "artifact/shared_state.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "artifact/tensor_file.h"
#include "io/file.h"

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

void share_file(ranks::Group& group, const std::filesystem::path& path) {
  constexpr std::int64_t kPiece = 16 << 20;
  if (group.size() == 1) return;
  const bool leads = group.rank() == 0;
  std::unique_ptr<io::InputFile> from;
  std::unique_ptr<io::OutputFile> to;
  const at::Tensor size = at::zeros({1}, at::kLong);
  if (leads) {
    from = io::open_file(path);
    size.fill_(static_cast<std::int64_t>(from->size()));
  } else {
    to = io::create_file(path);
  }
  group.broadcast(size, 0);
  const auto bytes = size.item<std::int64_t>();
  for (std::int64_t begin = 0; begin < bytes; begin += kPiece) {
    at::Tensor piece = at::empty({std::min(kPiece, bytes - begin)}, at::kByte);
    const auto at = static_cast<std::uint64_t>(begin);
    if (leads) from->read_at(at, writable_bytes(piece));
    group.broadcast(piece, 0);
    if (!leads) to->write_at(at, tensor_bytes(piece));
  }
  if (!leads) to->close();
}

}  // namespace fettle::artifact
