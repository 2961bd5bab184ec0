// SPDX-License-Identifier: Apache-2.0
// A model folder's tokenizer.json as keys of a GGUF file.
#pragma once

#include <filesystem>

#include "export/export.h"
#include "export/gguf/gguf_file.h"
#include "model/family/model_config.h"

namespace fettle::exporter {

// Tokens, merges or scores, special tokens and chat template of `folder`'s
// tokenizer, for a model of `config`. llama.cpp knows byte-level BPE with a few
// rules for words by name, and SentencePiece's BPE with bytes to fall back to;
// any other tokenizer is a UserError that names what is in its way.
GgufKeys gguf_tokenizer_keys(
    const std::filesystem::path& folder,
    const model::ModelConfig& config,
    const ExportOptions& options);

}  // namespace fettle::exporter
