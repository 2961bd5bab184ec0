// SPDX-License-Identifier: Apache-2.0
// README.md of a written model folder: a model card with what fettle.json says
// of how the model came to be, and how each program loads it. Of paths it names
// only the last part.
#pragma once

#include <filesystem>
#include <string>

namespace fettle::artifact {

// A README.md that is no card of Fettle's is kept under this name, and goes on
// from stage to stage.
inline constexpr const char* kSourceReadme = "README.source.md";

// The model's name on a hub where its folder shows it ("org/name", by
// "_name_or_path" in config.json or the hub's cache), else the folder's name.
std::string model_name(const std::filesystem::path& folder);

// Keeps the README of `from`, which was not written by write_card, or which
// was kept there, in `to`.
void keep_readme(
    const std::filesystem::path& from, const std::filesystem::path& to);

// Writes `folder`/README.md from its config.json, fettle.json and
// kSourceReadme, whose license and languages it carries over.
void write_card(const std::filesystem::path& folder);

// Writes `folder`/README.md of an adapter that was trained on the model in
// `base`, from its adapter.json.
void write_adapter_card(
    const std::filesystem::path& folder, const std::filesystem::path& base);

}  // namespace fettle::artifact
