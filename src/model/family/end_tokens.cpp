// SPDX-License-Identifier: Apache-2.0
#include "model/family/end_tokens.h"

#include <fmt/format.h>

#include "model/family/config_values.h"

namespace fettle::model {
namespace {

constexpr std::string_view kKey = "eos_token_id";

void check_vocabulary(
    const JsonObject& json,
    const std::vector<std::int64_t>& ids,
    std::int64_t vocab_size) {
  for (const std::int64_t id : ids) {
    if (id >= 0 && id < vocab_size) continue;
    json.refuse(
        kKey,
        fmt::format("names token {}, of a vocabulary of {}", id, vocab_size));
  }
}

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
  if (std::filesystem::exists(file)) {
    const Json json = read_json(file, "model");
    const JsonObject object(json, "model", file.string());
    const std::vector<std::int64_t> ids = parse_end_tokens(object, {});
    check_vocabulary(object, ids, config.vocab_size);
    if (!ids.empty()) return ids;
  }
  // What the file doesn't name is a default of the family, which a smaller
  // vocabulary need not have.
  if (config.json.contains(kKey)) {
    check_vocabulary(
        {config.json, "model", (folder / "config.json").string()},
        config.eos_token_ids,
        config.vocab_size);
  }
  return config.eos_token_ids;
}

}  // namespace fettle::model
