// SPDX-License-Identifier: Apache-2.0
#include "tune/resume.h"

#include <fmt/format.h>

#include "artifact/run_state.h"
#include "core/error.h"
#include "tune/adapter/adapter.h"
#include "tune/best_evaluation.h"

namespace fettle::tune {

namespace {

constexpr const char* kMayChange[] = {
    "lr", "router_lr", "warmup", "router_warmup", "min_lr_ratio", "steps"};

}  // namespace

Json run_identity(
    const TuneInput& input, const TuneOptions& options, bool judged) {
  Json data = input.train.state();
  data.erase("current");
  for (Json& source : data["sources"]) source.erase("drawn");
  Json same = to_json(options);
  // These options do not change the numbers.
  for (const char* key : {"save_every", "max_bad_steps"}) same.erase(key);
  Json identity{
      {"model", model_fingerprint(input.model.reader())},
      {"teacher", input.teacher_fingerprint},
      {"data", std::move(data)},
      {"options", std::move(same)}};
  const std::int64_t shards = input.sweep.team.shards;
  if (shards > 1) identity["shards"] = shards;
  if (judged) identity["held_out"] = held_out_identity(input.held_out);
  return identity;
}

Json fixed_identity(Json identity) {
  // A damaged one is for the comparison to refuse.
  if (!identity.contains("options") || !identity["options"].is_object()) {
    return identity;
  }
  for (const char* key : kMayChange) identity["options"].erase(key);
  return identity;
}

void check_resumed_run(
    const Json& saved,
    const Json& now,
    std::int64_t steps,
    Reporter& reporter) {
  artifact::check_same_run(fixed_identity(saved), fixed_identity(now), "tune");
  const Json& options = now["options"];
  if (options["steps"].get<std::int64_t>() < steps) {
    throw UserError(
        "tune",
        "steps",
        fmt::format(
            "expected at least the {} steps that were made, found {}; give "
            "more",
            steps,
            options["steps"].dump()));
  }
  for (const char* key : kMayChange) {
    const Json was = saved["options"].value(key, Json());
    if (was == options[key]) continue;
    reporter.note(fmt::format(
        "{} is {} from step {} on; it was {}",
        key,
        options[key].dump(),
        steps + 1,
        was.dump()));
  }
}

}  // namespace fettle::tune
