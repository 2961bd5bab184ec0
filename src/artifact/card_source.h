// SPDX-License-Identifier: Apache-2.0
// What a model card takes from the README of the model it was made from.
#pragma once

#include <filesystem>
#include <string>

namespace fettle::artifact {

// The entries of the front matter that hold for a changed model too (license,
// language, pipeline_tag), as YAML as they stand there, each line ended; empty
// where there are none.
std::string carried_front_matter(const std::filesystem::path& readme);

// The first 64 KiB of a file; empty where it can't be read.
std::string beginning_of(const std::filesystem::path& path);

}  // namespace fettle::artifact
