// SPDX-License-Identifier: Apache-2.0
// Sums over the shards of all ranks.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "ranks/group.h"
#include "ranks/shards.h"

namespace fettle::ranks {

// `own` has what each shard of this rank gave: lists of the same shapes, types
// and reductions at every rank. Afterwards `into` holds the sums over all
// shards, in the order of ShardSum; its tensors may lie on a device. Each rank
// adds up a slice of the elements and sends those who need it what it comes to;
// `into` is of no use at ranks that don't own a sum.
void sum_over_ranks(
    const Team& team, ShardSum own, const std::vector<at::Tensor>& into);

}  // namespace fettle::ranks
