// SPDX-License-Identifier: Apache-2.0
#include "model/end_tokens.h"

#include <fmt/format.h>

#include "model/config_values.h"

namespace fettle::model {
namespace {

constexpr std::string_view kKey = "eos_token_id";

}  // namespace

std::vector<std::int64_t> parse_end_tokens(
    const JsonObject& json, const std::vector<std::int64_t>& fallback) {
  if (!json.json().contains(kKey)) return fallback;
  if (!json.has(kKey)) return {};
  if (json.at(kKey).is_array()) return read_integers(json, kKey);
  const std::int64_t id = json.integer(kKey);
  // Some files say -1 for "none".
  if (id < 0) return {};
  return {id};
}

std::vector<std::int64_t> end_tokens(
    const std::filesystem::path& folder, const ModelConfig& config) {
  const std::filesystem::path file = folder / "generation_config.json";
  if (!std::filesystem::exists(file)) return config.eos_token_ids;
  const Json json = read_json(file, "model");
  const JsonObject object(json, "model", file.string());
  std::vector<std::int64_t> ids = parse_end_tokens(object, {});
  for (const std::int64_t id : ids) {
    if (id >= 0 && id < config.vocab_size) continue;
    object.refuse(
        kKey,
        fmt::format(
            "names token {}, of a vocabulary of {}", id, config.vocab_size));
  }
  return ids.empty() ? config.eos_token_ids : ids;
}

}  // namespace fettle::model
