// SPDX-License-Identifier: Apache-2.0
#include "chain/weights_room.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "chain/candidate.h"
#include "core/error.h"

namespace fettle::chain {
namespace {

// Where a model as this one takes `needs` of `has` bytes: how large its folder
// may be instead. A byte less of weights is at least one less in memory, of
// which `usable` counts.
std::int64_t room_beside(const Footprint& f, std::int64_t has, double usable) {
  const auto spare = static_cast<double>(has - f.total);
  return f.file + static_cast<std::int64_t>(spare * usable);
}

}  // namespace

std::int64_t weights_room(const FitSource& source, const FitRequest& request) {
  const Engine& engine = find_engine(request.engine);
  const Bounds& bounds = request.bounds;
  if (!bounds.any()) {
    throw UserError(
        "fit",
        "--vram",
        "expected a bound to plan for: --vram, --ram, --disk or --budget");
  }
  std::int64_t room = std::numeric_limits<std::int64_t>::max();
  for (const auto& bound : {bounds.weights, bounds.disk}) {
    if (bound) room = std::min(room, *bound);
  }
  const auto has = request.on_card() ? bounds.vram : bounds.ram;
  if (!has) return room;
  // Plain weights are wider in Fettle's memory than on disk: it packs them all.
  // Where they are unpacked, plain ones take the least.
  const bool own = engine.storage == Storage::kFettle;
  for (const SchemeRow& scheme : engine.schemes) {
    const bool plain = scheme.scheme == std::string_view("keep");
    if ((own && plain) || (engine.unpacks && !plain)) continue;
    const Candidate whole(source, engine, {1.0, scheme}, request.on_card());
    if (!whole.why_not().empty()) continue;
    const Footprint f = whole.footprint(request.context, request.parallel);
    room = std::min(room, room_beside(f, *has, engine.work.usable));
  }
  return std::max<std::int64_t>(room, 0);
}

}  // namespace fettle::chain
