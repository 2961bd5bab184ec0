// SPDX-License-Identifier: Apache-2.0
#include "artifact/shared_state.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "artifact/tensor_file.h"
#include "core/error.h"
#include "io/file.h"

namespace fettle::artifact {
namespace {

// Its name, type and shape.
Json described(const std::string& name, const at::Tensor& tensor) {
  return {
      name,
      static_cast<int>(tensor.scalar_type()),
      std::vector<std::int64_t>(tensor.sizes().vec())};
}

at::Tensor made_like(const Json& tensor) {
  return at::empty(
      tensor[2].get<std::vector<std::int64_t>>(),
      static_cast<at::ScalarType>(tensor[1].get<int>()));
}

// But for its tensors.
Json described(const RunState& state) {
  return {
      {"step", state.step},
      {"identity", state.identity},
      {"cursor", state.cursor},
      {"micro_batch_tokens", state.micro_batch_tokens},
      {"found", state.found},
      {"unit", state.unit}};
}

RunState made_from(const Json& json) {
  return {
      .step = json["step"],
      .identity = json["identity"],
      .cursor = json["cursor"],
      .micro_batch_tokens = json["micro_batch_tokens"],
      .tensors = {},
      .found = json["found"],
      .unit = json["unit"]};
}

bool holds(const TensorMap& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  return found != tensors.end() && !found->second.is_meta();
}

// What rank 0 doesn't hold, in the order in which it is written.
struct Lacking {
  std::string name;
  at::ScalarType type;
};

std::vector<Lacking> lacking(ranks::Group& group, const TensorMap& tensors) {
  Json mine = Json::array();
  for (const auto& [name, tensor] : tensors) {
    if (tensor.is_meta()) mine.push_back(described(name, tensor));
  }
  std::vector<Lacking> result;
  for (const Json& tensor :
       Json::parse(ranks::broadcast_text(group, mine.dump(), 0))) {
    result.push_back(
        {tensor[0].get<std::string>(),
         static_cast<at::ScalarType>(tensor[1].get<int>())});
  }
  return result;
}

void require_one_holder(
    ranks::Group& group,
    const TensorMap& tensors,
    const std::vector<Lacking>& missing) {
  if (missing.empty()) return;
  at::Tensor holders = at::zeros({std::ssize(missing)}, at::kLong);
  for (std::size_t i = 0; i < missing.size(); ++i) {
    if (holds(tensors, missing[i].name)) {
      holders.mutable_data_ptr<std::int64_t>()[i] = 1;
    }
  }
  ranks::add_up(group, holders);
  FETTLE_ASSERT(holders.eq(1).all().item<bool>());
}

}  // namespace

void save_shared_state(
    ranks::Group& group,
    const std::filesystem::path& folder,
    const RunState& state) {
  const bool leads = group.rank() == 0;
  const bool there = leads && has_state(folder, state.step);
  if (ranks::broadcast_value(group, there ? 1 : 0, 0) != 0) return;
  const auto missing = lacking(group, state.tensors);
  require_one_holder(group, state.tensors, missing);
  if (leads) {
    save_state(folder, state, [&](const std::string&, const at::Tensor& like) {
      return ranks::rows_at_rank_0(group, at::empty({0}, like.scalar_type()))
          .view(like.sizes());
    });
    return;
  }
  for (const auto& [name, type] : missing) {
    const bool mine = holds(state.tensors, name);
    ranks::rows_at_rank_0(
        group,
        mine ? state.tensors.at(name).detach().cpu().contiguous().view({-1})
             : at::empty({0}, type));
  }
}

std::optional<RunState> load_shared_state(
    ranks::Group& group,
    const std::filesystem::path& folder,
    std::string_view stage,
    const std::function<bool(const std::string& name)>& keeps) {
  std::optional<RunState> state;
  if (group.rank() == 0) {
    const auto keep = [&](const std::string& name, const at::Tensor& tensor) {
      ranks::broadcast_text(group, described(name, tensor).dump(), 0);
      if (tensor.numel() > 0) group.broadcast(tensor, 0);
      return keeps(name);
    };
    state = load_newest_state(folder, stage, {.keep = keep});
    ranks::broadcast_text(group, "", 0);
    ranks::broadcast_text(
        group, (state ? described(*state) : Json()).dump(), 0);
    return state;
  }
  TensorMap kept;
  while (true) {
    const std::string text = ranks::broadcast_text(group, "", 0);
    if (text.empty()) break;
    const Json tensor = Json::parse(text);
    const at::Tensor values = made_like(tensor);
    if (values.numel() > 0) group.broadcast(values, 0);
    const auto name = tensor[0].get<std::string>();
    if (keeps(name)) kept.emplace(name, values);
  }
  const Json rest = Json::parse(ranks::broadcast_text(group, "", 0));
  if (rest.is_null()) return std::nullopt;
  state = made_from(rest);
  state->tensors = std::move(kept);
  return state;
}

void share_file(ranks::Group& group, const std::filesystem::path& path) {
  constexpr std::int64_t kPiece = 16 << 20;
  if (group.size() == 1) return;
  const bool leads = group.rank() == 0;
  std::unique_ptr<io::InputFile> from;
  std::unique_ptr<io::OutputFile> to;
  if (leads) {
    from = io::open_file(path);
  } else {
    to = io::create_file(path);
  }
  const std::int64_t bytes = ranks::broadcast_value(
      group, leads ? static_cast<std::int64_t>(from->size()) : 0, 0);
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
