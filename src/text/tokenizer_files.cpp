// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer_files.h"

#include <fmt/format.h>

#include <array>
#include <string_view>

#include "core/error.h"
#include "core/json.h"

namespace fettle::text {
namespace {

namespace fs = std::filesystem;

bool lies_in(const fs::path& folder, std::string_view name) {
  std::error_code ignored;
  return fs::exists(folder / name, ignored);
}

// "add_bos_token" where its value is not what tokenizer.json does.
bool is_unheeded(const Json& config, std::string_view key, bool adds) {
  const auto found = config.find(key);
  return found != config.end() && found->is_boolean() &&
         found->get<bool>() != adds;
}

std::string unheeded_text(std::string_view key, bool adds) {
  return fmt::format(
      "tokenizer_config.json says \"{}\": {}, but tokenizer.json adds {}; "
      "Fettle goes by tokenizer.json, as transformers 5 does, where "
      "transformers 4 and llama.cpp heed the other",
      key,
      adds ? "false" : "true",
      adds ? "one" : "none");
}

}  // namespace

void require_tokenizer(const fs::path& model_folder) {
  if (lies_in(model_folder, "tokenizer.json")) return;
  constexpr std::array<std::string_view, 5> kOthers = {
      "tokenizer.model",
      "vocab.json",
      "tiktoken.model",
      "tekken.json",
      "vocab.txt"};
  for (const std::string_view other : kOthers) {
    if (!lies_in(model_folder, other)) continue;
    throw UserError(
        "tokenizer",
        model_folder.string(),
        fmt::format(
            "holds {}, but no tokenizer.json, which Fettle reads; write one in "
            "Python with AutoTokenizer.from_pretrained(...)"
            ".save_pretrained(\"OUT\") of transformers",
            other));
  }
  throw UserError(
      "tokenizer",
      (model_folder / "tokenizer.json").string(),
      "is missing; text needs it. Perhaps an incomplete download?");
}

std::string unheeded_options(
    const fs::path& model_folder, const Tokenizer& tokenizer) {
  constexpr const char* kFile = "tokenizer_config.json";
  if (!lies_in(model_folder, kFile)) return "";
  const Json config = read_json(model_folder / kFile, "tokenizer");
  if (!config.is_object()) return "";
  const bool begins = !tokenizer.ids_before().empty();
  if (is_unheeded(config, "add_bos_token", begins)) {
    return unheeded_text("add_bos_token", begins);
  }
  const bool ends = !tokenizer.ids_after().empty();
  return is_unheeded(config, "add_eos_token", ends)
             ? unheeded_text("add_eos_token", ends)
             : "";
}

}  // namespace fettle::text
