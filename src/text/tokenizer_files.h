// SPDX-License-Identifier: Apache-2.0
// The files beside tokenizer.json: what to say where it is missing, and where
// they ask for something else than it does.
#pragma once

#include <filesystem>
#include <string>

#include "text/tokenizer.h"

namespace fettle::text {

// Throws UserError unless the folder holds tokenizer.json; the message names
// the tokenizer that is there instead.
void require_tokenizer(const std::filesystem::path& model_folder);

// Where tokenizer_config.json says of begin and end tokens something else than
// tokenizer.json does: one line that says so and which one counts. Else empty.
std::string unheeded_options(
    const std::filesystem::path& model_folder, const Tokenizer& tokenizer);

}  // namespace fettle::text
