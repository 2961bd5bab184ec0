// SPDX-License-Identifier: Apache-2.0
#include "ranks/group.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/json.h"

namespace fettle::ranks {

std::string broadcast_text(
    Group& group, const std::string& text, std::int64_t root) {
  const bool mine = group.rank() == root;
  at::Tensor size = at::full(
      {1}, mine ? static_cast<std::int64_t>(text.size()) : 0, at::kLong);
  group.broadcast(size, root);
  const auto bytes = size.item<std::int64_t>();
  if (bytes == 0) return {};
  at::Tensor values = at::empty({bytes}, at::kByte);
  auto* const data =
      reinterpret_cast<char*>(values.mutable_data_ptr<std::uint8_t>());
  if (mine) std::ranges::copy(text, data);
  group.broadcast(values, root);
  return {data, static_cast<std::size_t>(bytes)};
}

namespace {

// [size]: every rank's value. By the network that sums take, where a rank that
// is gone is noticed at once.
at::Tensor all_values(Group& group, std::int64_t value) {
  const at::Tensor sent = at::full({group.size()}, value, at::kLong);
  at::Tensor all = at::empty_like(sent);
  const std::vector<std::int64_t> one(group.size(), 1);
  group.all_to_all(all, sent, {one, one});
  return all;
}

}  // namespace

std::int64_t least(Group& group, std::int64_t value) {
  return all_values(group, value).min().item<std::int64_t>();
}

std::int64_t sum(Group& group, std::int64_t value) {
  return all_values(group, value).sum().item<std::int64_t>();
}

at::Tensor rows_at_rank_0(Group& group, const at::Tensor& own) {
  const at::Tensor rows = all_values(group, own.size(0));
  const bool mine = group.rank() == 0;
  const auto shape_of = [&](std::int64_t count) {
    std::vector<std::int64_t> shape = own.sizes().vec();
    shape.front() = count;
    return shape;
  };
  const std::int64_t width = c10::multiply_integers(own.sizes().slice(1));
  Group::Splits splits;
  splits.sent.assign(group.size(), 0);
  splits.sent.front() = own.numel();
  for (std::int64_t r = 0; r < group.size(); ++r) {
    splits.received.push_back(mine ? rows[r].item<std::int64_t>() * width : 0);
  }
  at::Tensor all = at::empty(
      shape_of(mine ? rows.sum().item<std::int64_t>() : 0), own.options());
  group.all_to_all(all.view({-1}), own.view({-1}), splits);
  return all;
}

void require_same(Group& group, const std::vector<Common>& values) {
  Json mine = Json::array();
  for (const Common& common : values) {
    mine.push_back({common.name, common.value});
  }
  const auto all = group.gather(mine.dump());
  const Json first = Json::parse(all.front());
  for (std::size_t r = 1; r < all.size(); ++r) {
    const Json other = Json::parse(all[r]);
    for (std::size_t i = 0; i < std::min(first.size(), other.size()); ++i) {
      if (first[i] == other[i]) continue;
      throw UserError(
          "ranks",
          fmt::format("rank {}", r),
          fmt::format(
              "{}: expected that of rank 0, {}, found {}; start every rank "
              "with the same program, command line and files",
              first[i][0].get<std::string>(),
              first[i][1].get<std::string>(),
              other[i][1].get<std::string>()));
    }
  }
}

}  // namespace fettle::ranks
