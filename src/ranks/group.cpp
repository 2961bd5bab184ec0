// SPDX-License-Identifier: Apache-2.0
#include "ranks/group.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "core/error.h"
#include "core/json.h"

namespace fettle::ranks {

std::int64_t broadcast_value(
    Group& group, std::int64_t value, std::int64_t root) {
  const at::Tensor shared = at::full({1}, value, at::kLong);
  group.broadcast(shared, root);
  return shared.item<std::int64_t>();
}

std::string broadcast_text(
    Group& group, const std::string& text, std::int64_t root) {
  const bool mine = group.rank() == root;
  const std::int64_t bytes = broadcast_value(group, std::ssize(text), root);
  if (bytes == 0) return {};
  at::Tensor values = at::empty({bytes}, at::kByte);
  auto* const data =
      reinterpret_cast<char*>(values.mutable_data_ptr<std::uint8_t>());
  if (mine) std::ranges::copy(text, data);
  group.broadcast(values, root);
  return {data, static_cast<std::size_t>(bytes)};
}

namespace {

// [size, n]: every rank's n values. By the network that sums take, where a rank
// that is gone is noticed at once.
at::Tensor all_values(Group& group, const at::Tensor& own) {
  const std::int64_t count = own.numel();
  const at::Tensor sent =
      own.view({1, count}).expand({group.size(), count}).contiguous();
  at::Tensor all = at::empty_like(sent);
  const std::vector<std::int64_t> each(group.size(), count);
  group.all_to_all(all.view({-1}), sent.view({-1}), {each, each});
  return all;
}

at::Tensor all_values(Group& group, std::int64_t value) {
  return all_values(group, at::full({1}, value, at::kLong)).view({-1});
}

}  // namespace

std::int64_t least(Group& group, std::int64_t value) {
  return all_values(group, value).min().item<std::int64_t>();
}

std::int64_t sum(Group& group, std::int64_t value) {
  return all_values(group, value).sum().item<std::int64_t>();
}

void add_up(Group& group, at::Tensor& values) {
  const at::Tensor all = all_values(group, values);
  values.zero_();
  for (std::int64_t r = 0; r < group.size(); ++r) {
    values.view({-1}).add_(all[r]);
  }
}

namespace {

// Tensors that are broadcast as one.
void share_together(
    Group& group, std::span<const at::Tensor> values, std::int64_t root) {
  std::int64_t bytes = 0;
  for (const at::Tensor& tensor : values) {
    bytes += static_cast<std::int64_t>(tensor.nbytes());
  }
  if (bytes == 0) return;
  const bool whole = values.size() == 1 && values.front().is_cpu() &&
                     values.front().is_contiguous();
  if (whole) {
    group.broadcast(values.front(), root);
    return;
  }
  const at::Tensor together = at::empty({bytes}, at::kByte);
  const auto for_each = [&](const auto& visit) {
    std::int64_t at = 0;
    for (const at::Tensor& tensor : values) {
      const auto size = static_cast<std::int64_t>(tensor.nbytes());
      if (size > 0) visit(tensor, together.narrow(0, at, size));
      at += size;
    }
  };
  if (group.rank() == root) {
    for_each([](const at::Tensor& tensor, const at::Tensor& place) {
      place.copy_(tensor.cpu().contiguous().view({-1}).view(at::kByte));
    });
  }
  group.broadcast(together, root);
  if (group.rank() == root) return;
  for_each([](const at::Tensor& tensor, const at::Tensor& place) {
    // A copy lies where its type may begin.
    tensor.copy_(place.clone().view(tensor.scalar_type()).view(tensor.sizes()));
  });
}

}  // namespace

void share(
    Group& group, const std::vector<at::Tensor>& values, std::int64_t root) {
  constexpr std::uint64_t kTogether = 16 << 20;
  if (group.size() == 1) return;
  const at::NoGradGuard no_grad;
  for (std::size_t first = 0; first < values.size();) {
    std::size_t end = first;
    std::uint64_t bytes = 0;
    do {
      bytes += values[end++].nbytes();
    } while (end < values.size() && bytes + values[end].nbytes() <= kTogether);
    share_together(group, std::span(values).subspan(first, end - first), root);
    first = end;
  }
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
