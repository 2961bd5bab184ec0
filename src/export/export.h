// SPDX-License-Identifier: Apache-2.0
// Writes a model in a form that other programs load, reads it back and compares
// what was read with what was meant.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "artifact/model_writer.h"
#include "core/progress.h"
#include "io/checkpoint_writer.h"
#include "model/causal_lm.h"
#include "model/weights/model_reader.h"

namespace fettle::exporter {

// hf: the family's stock layout; every layer has the same number of experts of
// one width. hf_padded: the same, narrower experts filled up with neurons of
// weight zero, which changes no output, to the least width that the widest fits
// into and loaders can run (kLoaderUnit). hf does so too where the one width
// can't run in the type that config.json names. Shared experts that a family
// counts in experts are filled up to a whole number of them. hf_code: experts
// of any number and width for transformers, with a Python file beside them
// (hf_code/hf_code_layout.h); packed weights are unpacked. ragged: Fettle's own
// form. The others are for packed weights, pad in the same way where widths
// differ or their groups and blocks ask for it, and hold every value exactly.
enum class Format {
  kHf,
  kHfPadded,
  kHfCode,
  kRagged,
  kCompressedTensors,  // pack-quantized integers: compressed_tensors.h
  kGptq,               // GPTQModel's layout: gptq_layout.h
  kGguf,               // one file for llama.cpp: gguf_export.h
};

// "hf", "hf-padded", "hf-code", "ragged", "compressed-tensors", "gptq", "gguf".
// Throws UserError naming the known formats.
Format parse_format(std::string_view name);
std::string_view format_name(Format format);
// Whether it holds packed weights alone, which fettle quant makes.
bool needs_packed(Format format);

struct ExportOptions {
  Format format = Format::kHf;
  // Type of all weights on disk; none: as they are stored.
  std::optional<at::ScalarType> dtype = {};
  // Leave out the experts' constant outputs, for which stock layouts have no
  // place.
  bool drop_constants = false;
  // Leave out router biases and condensers, for which stock layouts have no
  // place: the router alone chooses, without bias, all top_k experts.
  bool drop_condensers = false;
  // compressed-tensors and gptq: where they can't hold codes as they are, hold
  // the same values in codes of more bits or in smaller groups.
  bool recode = false;
  // Where a format can't hold a packed weight's values, write the nearest that
  // it can.
  bool nearest = false;
  // The same of the model's shape alone, where an export is only planned.
  bool nearest_shape = false;
  // What becomes of heads that predict further tokens; a GGUF has none.
  artifact::Mtp mtp = artifact::Mtp::kAuto;
  // Most bytes of tensors in a file of weights; a GGUF is one file.
  std::uint64_t shard_bytes = io::kShardBytes;
  // Tokens of the reload check, and the seed that draws them.
  std::int64_t check_sequences = 2;
  std::int64_t check_tokens = 64;
  std::uint64_t seed = 0;
  // Where and in what type the check computes.
  model::ModelOptions check = {};
  // Fingerprint of the source, for the manifest.
  std::string input_fingerprint = {};
  // Told of every byte written; null: silent.
  Reporter* reporter = nullptr;
};

struct ExportResult {
  artifact::ModelSize before;
  artifact::ModelSize after;
  std::int64_t padded_neurons = 0;
  bool narrowed = false;  // some weight lost bits to `dtype`
  // Largest difference of the final hidden states and logits between the model
  // read back and the source, relative to the largest value; of formats for
  // packed weights, of the values of one weight.
  double max_error = 0;
  // Of the formats that Fettle reads: mean KL between their predictions on the
  // check's tokens.
  double kl = 0;
  // Of formats for packed weights: numbers stored by each type, and weights
  // that `nearest` changed.
  std::map<std::string, std::int64_t> types = {};
  std::int64_t rounded = 0;
  Json to_json() const;
};

// The configuration of the exported model. Throws UserError where the layout
// can't hold the model: names the layer or expert and the format that can.
model::ModelConfig exported_config(
    const model::ModelConfig& config, const ExportOptions& options);

// Writes into `folder`, which exists, and checks it: every tensor read back is
// the one meant, and, unless a type was narrowed, a forward pass differs from
// the source's by at most 1e-5 (not at all under ragged with types kept). Where
// Fettle does not read the format, every value is unpacked anew and compared.
// Throws UserError where the layout can't hold the model or a weight is NaN or
// infinite, before anything is written, and InternalError when the check fails.
ExportResult export_model(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder);

}  // namespace fettle::exporter
