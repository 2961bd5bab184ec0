// SPDX-License-Identifier: Apache-2.0
#include "ranks/place.h"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

#include "core/error.h"

namespace fettle::ranks {
namespace {

std::optional<std::int64_t> number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return {};
  return value;
}

class Variables {
 public:
  explicit Variables(const Environment& environment)
      : environment_(environment) {}

  std::string text(const char* name) const {
    const char* value = environment_(name);
    if (value == nullptr || *value == '\0') {
      throw UserError(
          "ranks",
          name,
          "is not set, though WORLD_SIZE is; torchrun sets both, and other "
          "launchers must");
    }
    return value;
  }

  std::int64_t integer(
      const char* name, std::int64_t least, std::int64_t most) const {
    const std::string value = text(name);
    const auto parsed = number(value);
    if (parsed && *parsed >= least && *parsed <= most) return *parsed;
    throw UserError(
        "ranks",
        name,
        fmt::format(
            "expected a number from {} to {}, found {}", least, most, value));
  }

  bool has(const char* name) const { return environment_(name) != nullptr; }

 private:
  const Environment& environment_;
};

}  // namespace

std::optional<Place> place_of(const Environment& environment) {
  constexpr std::int64_t kMost = 4096;
  const Variables variables(environment);
  if (!variables.has("WORLD_SIZE")) return std::nullopt;
  Place place;
  place.size = variables.integer("WORLD_SIZE", 1, kMost);
  if (place.size == 1) return std::nullopt;
  place.rank = variables.integer("RANK", 0, place.size - 1);
  if (variables.has("LOCAL_WORLD_SIZE")) {
    place.local_size = variables.integer("LOCAL_WORLD_SIZE", 1, place.size);
  }
  place.address = variables.text("MASTER_ADDR");
  place.port = variables.integer("MASTER_PORT", 1, 65535);
  if (variables.has("TORCHELASTIC_USE_AGENT_STORE")) {
    place.launcher_serves =
        variables.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  }
  if (variables.has("TORCHELASTIC_RESTART_COUNT")) {
    place.attempt = variables.text("TORCHELASTIC_RESTART_COUNT");
  }
  if (variables.has("FETTLE_RANKS_WAIT")) {
    place.wait_seconds = variables.integer("FETTLE_RANKS_WAIT", 1, 86400);
  }
  return place;
}

std::string rank_name(const Environment& environment) {
  const char* size = environment("WORLD_SIZE");
  const char* rank = environment("RANK");
  if (size == nullptr || rank == nullptr) return {};
  if (number(size).value_or(1) < 2 || !number(rank)) return {};
  return fmt::format("rank {}", rank);
}

}  // namespace fettle::ranks
