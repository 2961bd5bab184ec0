// SPDX-License-Identifier: Apache-2.0
#include "cli/session.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "core/bytes.h"
#include "core/error.h"
#include "core/memory.h"
#include "kernels/device_backend.h"

namespace fettle::cli {

void add_common_options(CLI::App& app, CommonOptions& o) {
  const char* group = "Common options";
  const auto add = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)
        ->group(group)
        ->capture_default_str();
  };
  add("--device", o.device, "cpu, cuda or cuda:N (AMD cards too)");
  add("--compute-dtype",
      o.compute_dtype,
      "Type of weights and activations in a sweep; auto: float32 on a CPU, "
      "bfloat16 on a card")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}));
  add("--vram", o.vram, "Most memory of the card to use, such as 6GiB");
  add("--ram", o.ram, "Most memory of the machine to use, such as 16GiB");
  add("--scratch", o.scratch, "Folder for activations that RAM can't hold");
  add("--threads", o.threads, "CPU threads; 0: all cores");
  add("--seed", o.seed, "Of everything drawn at random");
  add("--json", o.json, "Write the result as JSON to this file, - for stdout");
  app.add_flag("--quiet", o.quiet, "No progress")->group(group);
}

Session::Session(const CommonOptions& options) : options_(options) {
  const DeviceSpec spec = parse_device(options.device);
  if (!options.ram.empty()) budget_.ram = parse_bytes(options.ram);
  if (options.threads < 0) {
    throw UsageError("cli", "--threads", "must be 0 or more");
  }
  if (options.threads > 0) at::set_num_threads(options.threads);
  device_ = kernels::open_device(spec);
  bound_vram();
  if (options.quiet) {
    reporter_ = std::make_unique<SilentReporter>();
  } else {
    reporter_ = std::make_unique<ConsoleReporter>(console_options(stderr));
  }
}

// To what was said, and to what others have left on the card.
void Session::bound_vram() {
  if (!options_.vram.empty()) budget_.vram = parse_bytes(options_.vram);
  if (device_.is_cpu()) return;
  const std::int64_t left = kernels::free_device_memory(device_);
  budget_.vram = std::min(budget_.vram.value_or(left), left);
}

// On the session's device.
sweep::Workload Session::here(sweep::Workload workload) const {
  workload.device = device_;
  const bool wide = options_.compute_dtype == "auto"
                        ? device_.is_cpu()
                        : options_.compute_dtype == "float32";
  workload.compute_type = wide ? at::kFloat : at::kBFloat16;
  if (!options_.scratch.empty()) workload.scratch = options_.scratch;
  return workload;
}

sweep::SweepPlan Session::least_plan(
    const model::ModelReader& reader, sweep::Workload workload) const {
  return sweep::least_plan(reader, here(std::move(workload)));
}

OpenModel Session::open(
    const std::filesystem::path& folder, sweep::Workload workload) {
  return open(std::make_unique<model::ModelReader>(folder), workload);
}

OpenModel Session::open(
    std::unique_ptr<model::ModelReader> reader, sweep::Workload workload) {
  OpenModel opened;
  opened.plan = sweep::plan_sweep(*reader, here(workload), budget_);
  if (!options_.ram.empty() || !options_.vram.empty()) {
    reporter_->note(opened.plan.summary());
  }
  opened.model = std::make_unique<model::CausalLm>(
      std::move(reader), opened.plan.model_options());
  return opened;
}

text::SampleOptions Session::sample_options(
    const model::ModelReader& reader) const {
  text::SampleOptions options;
  const auto& config = reader.config();
  if (!config.eos_token_ids.empty()) {
    options.eos_id = static_cast<std::int32_t>(config.eos_token_ids.front());
  }
  for (const auto id : config.eos_token_ids) {
    options.end_ids.push_back(static_cast<std::int32_t>(id));
  }
  options.vocab_limit = config.vocab_size;
  options.model_folder = reader.folder();
  const char* named = std::getenv("FETTLE_PYTHON");
  options.renderer.python = named != nullptr ? named : FETTLE_BUILD_PYTHON;
  options.renderer.script =
      std::filesystem::path(FETTLE_SCRIPTS) / "render_chat.py";
  return options;
}

std::vector<model::Sequence> Session::calibration(
    const model::ModelReader& reader, const CalibrationFiles& source) const {
  const auto tokenizer = text::Tokenizer::load(reader.folder());
  return sweep::load_calibration(
      data_files(source.data),
      {tokenizer, sample_options(reader), source.seq_len},
      source.tokens,
      seed());
}

void Session::add_peaks(Json& result) const {
  result["peak_ram_bytes"] = peak_resident_memory();
  result["peak_vram_bytes"] =
      device_.is_cpu() ? 0 : kernels::peak_device_memory(device_);
}

std::vector<text::WeightedFile> data_files(
    const std::vector<std::string>& arguments) {
  std::vector<text::WeightedFile> files;
  for (const auto& argument : arguments) {
    for (auto& file : text::parse_data_option(argument)) {
      files.push_back(std::move(file));
    }
  }
  return files;
}

}  // namespace fettle::cli
