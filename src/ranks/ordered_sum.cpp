// SPDX-License-Identifier: Apache-2.0
#include "ranks/ordered_sum.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.h"

namespace fettle::ranks {
namespace {

// Elements that are exchanged together: they bound the buffers, and change no
// bit.
constexpr std::int64_t kSlab = 4 << 20;

using Values = std::vector<at::Tensor>;

// Elements [from, from + out.size) of tensors laid one after another.
template <typename Copy>
void for_each_piece(
    const Values& values, std::int64_t from, std::int64_t count, Copy copy) {
  std::int64_t begin = 0;
  for (const at::Tensor& tensor : values) {
    const std::int64_t end = begin + tensor.numel();
    const std::int64_t a = std::max(begin, from);
    const std::int64_t b = std::min(end, from + count);
    if (a < b) copy(tensor.view({-1}).slice(0, a - begin, b - begin), a - from);
    begin = end;
  }
}

// These elements where they lie side by side in memory of the CPU: they needn't
// be copied to be sent, or from where they were received. Undefined elsewhere.
at::Tensor side_by_side(
    const Values& values, std::int64_t from, std::int64_t count) {
  at::Tensor found;
  for_each_piece(
      values, from, count, [&](const at::Tensor& piece, std::int64_t) {
        if (piece.numel() == count && piece.is_cpu()) found = piece;
      });
  return found;
}

// One type and reduction: all its tensors as one row of elements.
class Exchange {
 public:
  Exchange(const Team& team, Reduction how, at::ScalarType type)
      : group_(*team.group), how_(how), type_(type) {
    for (std::int64_t r = 0; r < group_.size(); ++r) {
      runs_.push_back(partials_of(shards_of(r, group_.size(), team.shards)));
    }
  }

  // parts: the row as each of this rank's partial sums has it.
  void run(const std::vector<Values>& parts, const Values& into) {
    std::int64_t elements = 0;
    for (const at::Tensor& tensor : into) elements += tensor.numel();
    for (std::int64_t from = 0; from < elements; from += kSlab) {
      const std::int64_t count = std::min(kSlab, elements - from);
      width_ = (count + group_.size() - 1) / group_.size();
      count_ = count;
      const at::Tensor place =
          gets(group_.rank()) ? side_by_side(into, from, count) : at::Tensor();
      const at::Tensor sums = spread(add_up(collect(parts, from)), place);
      if (place.defined() || !gets(group_.rank())) continue;
      for_each_piece(
          into, from, count, [&](const at::Tensor& piece, std::int64_t at) {
            piece.copy_(sums.narrow(0, at, piece.numel()));
          });
    }
  }

 private:
  // Elements that a rank adds up, and where they begin.
  std::int64_t begin(std::int64_t r) const {
    return std::min(r * width_, count_);
  }
  std::int64_t width(std::int64_t r) const { return begin(r + 1) - begin(r); }
  std::int64_t mine() const { return width(group_.rank()); }
  bool gets(std::int64_t r) const {
    return how_.owner == Reduction::kEveryRank || how_.owner == r;
  }

  at::Tensor buffer(at::Tensor& kept, std::int64_t elements) const {
    if (!kept.defined() || kept.numel() < elements) {
      kept = at::empty({elements}, type_);
    }
    return kept.narrow(0, 0, elements);
  }

  // This rank's slice of everyone's partial sums, in their order.
  at::Tensor collect(const std::vector<Values>& parts, std::int64_t from) {
    const auto own = static_cast<std::int64_t>(parts.size());
    Group::Splits splits;
    std::int64_t received = 0;
    for (std::int64_t r = 0; r < group_.size(); ++r) {
      splits.sent.push_back(own * width(r));
      splits.received.push_back(
          static_cast<std::int64_t>(runs_[r].size()) * mine());
      received += splits.received.back();
    }
    at::Tensor got = buffer(received_, received);
    group_.all_to_all(got, laid_out(parts, from), splits);
    return got;
  }

  // The elements of all parts, a rank's slice after another's.
  at::Tensor laid_out(const std::vector<Values>& parts, std::int64_t from) {
    if (parts.size() == 1) {
      at::Tensor all = side_by_side(parts.front(), from, count_);
      if (all.defined()) return all;
    }
    at::Tensor send =
        buffer(sent_, static_cast<std::int64_t>(parts.size()) * count_);
    std::int64_t filled = 0;
    for (std::int64_t r = 0; r < group_.size(); ++r) {
      for (const Values& part : parts) {
        for_each_piece(
            part,
            from + begin(r),
            width(r),
            [&](const at::Tensor& piece, std::int64_t at) {
              send.narrow(0, filled + at, piece.numel()).copy_(piece);
            });
        filled += width(r);
      }
    }
    return send;
  }

  at::Tensor add_up(const at::Tensor& got) const {
    ShardSum sum({how_});
    std::int64_t at = 0;
    for (const auto& runs : runs_) {
      for (const Shards& run : runs) {
        sum.add({run.first, run.count, {got.narrow(0, at, mine())}});
        at += mine();
      }
    }
    return std::move(sum).total().front();
  }

  // All ranks' sums, one after another, where they are needed: at `place`, if
  // it is defined.
  at::Tensor spread(const at::Tensor& sums, const at::Tensor& place) {
    const bool needed = gets(group_.rank());
    std::int64_t copies = 0;
    Group::Splits splits;
    for (std::int64_t r = 0; r < group_.size(); ++r) {
      splits.sent.push_back(gets(r) ? mine() : 0);
      splits.received.push_back(needed ? width(r) : 0);
      copies += gets(r) ? 1 : 0;
    }
    const at::Tensor send = buffer(sent_, copies * mine());
    send.view({copies, mine()}).copy_(sums.expand({copies, mine()}));
    at::Tensor all =
        place.defined() ? place : buffer(all_, needed ? count_ : 0);
    group_.all_to_all(all, send, splits);
    return all;
  }

  Group& group_;
  Reduction how_;
  at::ScalarType type_;
  std::vector<std::vector<Shards>> runs_;  // [size]: of partial sums
  std::int64_t width_ = 0, count_ = 0;
  at::Tensor sent_, received_, all_;
};

}  // namespace

void sum_over_ranks(
    const Team& team, ShardSum own, const std::vector<at::Tensor>& into) {
  const at::NoGradGuard no_grad;
  if (team.group == nullptr || team.group->size() == 1) {
    const Values total = std::move(own).total();
    for (std::size_t i = 0; i < into.size(); ++i) into[i].copy_(total[i]);
    return;
  }
  std::map<std::pair<Reduction, at::ScalarType>, std::vector<std::size_t>>
      kinds;
  for (std::size_t i = 0; i < into.size(); ++i) {
    FETTLE_ASSERT(into[i].is_contiguous());
    kinds[{own.reductions()[i], into[i].scalar_type()}].push_back(i);
  }
  for (const auto& [kind, members] : kinds) {
    std::vector<Values> parts;
    for (const Partial& partial : own.partials()) {
      Values& row = parts.emplace_back();
      for (const std::size_t i : members) row.push_back(partial.values[i]);
    }
    Values row;
    for (const std::size_t i : members) row.push_back(into[i]);
    Exchange(team, kind.first, kind.second).run(parts, row);
  }
}

}  // namespace fettle::ranks
