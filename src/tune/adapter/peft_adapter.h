// SPDX-License-Identifier: Apache-2.0
// Low-rank pairs as PEFT's own adapter: adapter_config.json and
// adapter_model.safetensors, which peft.PeftModel.from_pretrained loads on the
// untouched base. Experts take PEFT's form for fused parameters
// (target_parameters), for which gate and up of an expert share their A.
// Source: peft 0.21, tuners/lora/layer.py, class ParamWrapper: of E experts
// lora_A is [E r, in], expert after expert, and lora_B [out, r E] with the
// experts innermost; on one module down_proj wraps gate_up_proj ("base_layer").
#pragma once

#include <filesystem>

#include "model/weights/model_reader.h"
#include "tune/adapter/adapter.h"
#include "tune/options/tune_options.h"

namespace fettle::tune {

// Throws UserError when a run of `options` on a model of `config` leaves what
// PEFT has no place for: other parts than pairs, experts of several widths or
// counts, constants, condensers, or router biases.
void check_peft(const TuneOptions& options, const model::ModelConfig& config);

// Throws UserError when a finished adapter has what PEFT has no place for, or
// is unfit (Adapter::load).
void check_peft_adapter(
    const model::ModelReader& base,
    const std::filesystem::path& adapter_folder,
    const AdapterLoadOptions& options = {});

// Writes `out`, which appears whole or not at all, from an adapter that
// check_peft_adapter lets pass. Throws UserError when the adapter is unfit
// (Adapter::load) or `out` exists.
void write_peft_adapter(
    const model::ModelReader& base,
    const std::filesystem::path& adapter_folder,
    const std::filesystem::path& out,
    const AdapterLoadOptions& options = {});

}  // namespace fettle::tune
