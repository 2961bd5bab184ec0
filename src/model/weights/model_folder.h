// SPDX-License-Identifier: Apache-2.0
// What people give as a model: a folder as Hugging Face writes it. Everything
// else that is often given in its place is named for what it is.
#pragma once

#include <filesystem>
#include <string>

namespace fettle::model {

// The folder of a model within the Hugging Face cache, where `given` is the
// cache's folder of that model (models--ORG--NAME) and it is clear which
// snapshot is meant; else `given`.
std::filesystem::path resolved_model_folder(const std::filesystem::path& given);

// `folder`. Throws UserError unless it holds config.json and weights in
// safetensors; the message says what it is instead (a Hub id, a file, a GGUF,
// an adapter, PyTorch weights, ...) and what to do.
std::filesystem::path checked_model_folder(const std::filesystem::path& folder);

// What people call the model in `folder`: the folder's name, in the Hugging
// Face cache the model's.
std::string model_name(const std::filesystem::path& folder);

}  // namespace fettle::model
