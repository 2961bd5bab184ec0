// SPDX-License-Identifier: Apache-2.0
#include "cli/session.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <pthread.h>
#include <torch/version.h>

#include <algorithm>
#include <future>
#include <system_error>
#include <thread>
#include <vector>

#include "artifact/manifest.h"
#include "cli/argument_checks.h"
#include "cli/model_option.h"
#include "cli/rank_process.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/installed.h"
#include "core/memory.h"
#include "core/size_option.h"
#include "kernels/device_backend.h"
#include "sweep/require_ram.h"
#include "text/tokenizer_files.h"

namespace fettle::cli {
namespace {

constexpr int kMostThreads = 1024;

// Where threads can't be started, libtorch waits for ever and OpenMP ends the
// program: both are asked for as many afterwards.
void require_threads(int count) {
  std::promise<void> all;
  const auto started = all.get_future().share();
  std::vector<std::jthread> threads;
  try {
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([started] { started.wait(); });
    }
  } catch (const std::system_error& error) {
    all.set_value();
    throw UserError(
        "cli",
        "--threads",
        fmt::format(
            "{} threads can't be started, {} can ({}); give fewer, or raise "
            "ulimit -u or -v",
            count,
            threads.size(),
            error.code().message()));
  }
  all.set_value();
}

// Addresses that threads take beside the data: a stack each in the teams of the
// main thread, of the one that reads ahead, of autograd and of the guard, and
// glibc's second arena with room for one more.
std::int64_t addresses_of_threads(int count) {
  constexpr std::int64_t kArena = 64 << 20;
  std::size_t stack = 8 << 20;
  pthread_attr_t defaults;
  if (::pthread_getattr_default_np(&defaults) == 0) {
    ::pthread_attr_getstacksize(&defaults, &stack);
    ::pthread_attr_destroy(&defaults);
  }
  return static_cast<std::int64_t>(stack) * (4 * count + 4) + 2 * kArena;
}

// The budget of RAM, bounded by what limits of this process leave for data.
// OpenMP ends the program where it can't start a thread, at any time in a run,
// so that no budget may reach into the room of threads.
std::optional<std::int64_t> bounded_ram(
    std::optional<std::int64_t> asked, int threads) {
  const auto room = room_under_own_limits();
  if (!room) return asked;
  const std::int64_t left = *room - addresses_of_threads(threads);
  if (left <= 0) {
    throw UserError(
        "cli",
        "--threads",
        fmt::format(
            "ulimit -v or -d leaves {}, and {} threads need {}; raise the "
            "limit{}",
            format_bytes(*room),
            threads,
            format_bytes(*room - left),
            threads > 1 ? ", or give fewer threads" : ""));
  }
  if (asked && *asked > left) {
    throw UserError(
        "cli",
        "--ram",
        fmt::format(
            "ulimit -v or -d leaves {} for data, found {}; give less, or raise "
            "the limit",
            format_bytes(left),
            format_bytes(*asked)));
  }
  return asked ? *asked : std::min(left, available_memory()) / 2;
}

}  // namespace

void add_common_options(CLI::App& app, CommonOptions& o, CommonChoice choice) {
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
  if (choice.budgets) {
    add("--vram", o.vram, "Most memory of the card to use, as --ram");
    add("--ram",
        o.ram,
        "Most memory of the machine to use: 16GiB or 16G (of 2^30 bytes), 16GB "
        "(of "
        "10^9); by default half of what is free");
  }
  add("--scratch", o.scratch, "Folder for activations that RAM can't hold");
  add("--threads", o.threads, "CPU threads; 0: all cores");
  if (choice.shards) {
    add("--shards",
        o.shards,
        "Parts of the data whose sums are added in a fixed order: the same "
        "bits "
        "on any number of ranks; 0: 1, or on several ranks 8 or as many as "
        "there are")
        ->check(CLI::NonNegativeNumber);
  }
  add("--seed", o.seed, "Of everything drawn at random");
  add("--json", o.json, "Write the result as JSON to this file, - for stdout");
  app.add_flag("--quiet", o.quiet, "No progress")->group(group);
  check_numbers(app);
}

Session::Session(const CommonOptions& options) : options_(options) {
  const auto place = process_place();
  const DeviceSpec spec = parse_device(options.device);
  if (!options.ram.empty()) budget_.ram = parse_size(options.ram, "--ram");
  if (options.threads < 0 || options.threads > kMostThreads) {
    throw UsageError(
        "cli",
        "--threads",
        fmt::format(
            "expected 0 to {}, found {}", kMostThreads, options.threads));
  }
  const int usual = place ? threads_of_rank(*place) : at::get_num_threads();
  const int threads = options.threads > 0 ? options.threads : usual;
  if (place) {
    // The machine's memory is for all of its ranks.
    budget_.ram =
        budget_.ram.value_or(available_memory() / 2) / place->local_size;
  }
  budget_.ram = bounded_ram(budget_.ram, threads);
  require_threads(2 + threads);  // and those of the guard
  if (options.threads > 0 || place) at::set_num_threads(threads);
  crowd_guard_.emplace(at::get_num_threads());
  device_ = kernels::open_device(spec);
  bound_vram();
  meet_ranks();
  if (options.quiet || !leads()) {
    reporter_ = std::make_unique<SilentReporter>();
  } else {
    reporter_ = std::make_unique<ConsoleReporter>(console_options(stderr));
  }
}

// What they must share before the first sum: numbers of another processor or
// compute type are others.
void Session::meet_ranks() {
  group_ = open_ranks();
  const std::int64_t size = group_->size();
  const std::int64_t usual = size == 1 ? 1 : std::max<std::int64_t>(8, size);
  team_ = {group_.get(), options_.shards > 0 ? options_.shards : usual};
  if (team_.shards < size) {
    throw UsageError(
        "ranks",
        "--shards",
        fmt::format(
            "expected at least the {} ranks, found {}", size, team_.shards));
  }
  ranks::require_same(
      *group_,
      {{"Fettle's version", std::string(artifact::version())},
       {"libtorch's version", TORCH_VERSION},
       {"the number of ranks", std::to_string(size)},
       {"the command line", options_.command},
       {"--threads", std::to_string(at::get_num_threads())},
       {"the processor's instructions", at::get_cpu_capability()}});
}

bool Session::work_alone() {
  team_ = {};
  return leads();
}

std::int64_t Session::as_rank_0(std::int64_t value) const {
  if (team_.ranks() == 1) return value;
  return ranks::broadcast_value(*group_, value, 0);
}

void Session::require_undivided(const char* what) const {
  if (!team_.divides()) return;
  throw UsageError(
      "ranks",
      what,
      "is for one process and one shard; start it without torchrun and "
      "--shards");
}

void Session::require_same(const char* name, const std::string& value) const {
  if (team_.ranks() == 1) return;
  ranks::require_same(*group_, {{name, value}});
}

// To what was said, and to what others have left on the card.
void Session::bound_vram() {
  if (!options_.vram.empty())
    budget_.vram = parse_size(options_.vram, "--vram");
  if (device_.is_cpu() && budget_.vram) {
    throw UsageError(
        "cli",
        "--vram",
        fmt::format(
            "bounds the memory of a card, and none is in use; give --device "
            "cuda, or leave it out (--device is {})",
            options_.device));
  }
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
  workload.team = team_;
  if (!options_.scratch.empty()) workload.scratch = options_.scratch;
  return workload;
}

std::unique_ptr<model::ModelReader> Session::read(
    const std::filesystem::path& folder) {
  auto reader = std::make_unique<model::ModelReader>(folder);
  tell_once(left_out_text(*reader));
  return reader;
}

text::Tokenizer Session::tokenizer(const std::filesystem::path& folder) {
  auto tokenizer = text::Tokenizer::load(folder);
  tell_once(text::unheeded_options(folder, tokenizer));
  return tokenizer;
}

void Session::tell_once(const std::string& text) {
  if (!text.empty() && told_.insert(text).second) reporter_->note(text);
}

sweep::SweepPlan Session::least_plan(
    const model::ModelReader& reader, sweep::Workload workload) const {
  return sweep::least_plan(reader, here(std::move(workload)));
}

bool Session::fits(
    const model::ModelReader& reader, sweep::Workload workload) const {
  return sweep::fits(reader, here(std::move(workload)), budget_);
}

OpenModel Session::open(
    const std::filesystem::path& folder, sweep::Workload workload) {
  return open(read(folder), workload);
}

OpenModel Session::open(
    std::unique_ptr<model::ModelReader> reader, sweep::Workload workload) {
  OpenModel opened;
  opened.plan = sweep::plan_sweep(*reader, here(workload), budget_);
  if (team_.ranks() > 1) {
    require_same("the model's weights", reader->fingerprint());
    opened.plan.micro_batch_tokens =
        ranks::least(*group_, opened.plan.micro_batch_tokens);
  }
  if (!options_.ram.empty() || !options_.vram.empty()) {
    reporter_->note(opened.plan.summary());
  }
  opened.model = std::make_unique<model::CausalLm>(
      std::move(reader), opened.plan.model_options());
  return opened;
}

void Session::require_ram(
    const model::ModelReader& reader, int copies, bool outer_as_stored) const {
  std::int64_t largest = 0;
  for (const auto& id : model::model_weights(reader.config())) {
    const bool plain = reader.packed_header(id) == nullptr &&
                       reader.stored_form(id) == nullptr;
    const std::size_t bytes = id.layer < 0 && outer_as_stored && plain
                                  ? c10::elementSize(reader.dtype(id))
                                  : sizeof(float);
    largest = std::max(
        largest,
        model::weight_numel(reader.config(), id) *
            static_cast<std::int64_t>(bytes));
  }
  require_ram(largest * copies);
}

void Session::require_ram(std::int64_t bytes) const {
  sweep::require_ram(budget_, bytes);
}

text::SampleOptions Session::sample_options(
    const model::ModelReader& reader, const DataFlags& flags) const {
  text::SampleOptions options;
  options.form = flags.row_form();
  const auto& config = reader.config();
  if (!config.eos_token_ids.empty()) {
    options.eos_id = static_cast<std::int32_t>(config.eos_token_ids.front());
  }
  for (const auto id : config.eos_token_ids) {
    options.end_ids.push_back(static_cast<std::int32_t>(id));
  }
  options.vocab_limit = config.vocab_size;
  options.model_folder = reader.folder();
  // An empty name stands for $FETTLE_PYTHON, and then for python3.
  std::error_code absent;
  if (std::filesystem::exists(FETTLE_BUILD_PYTHON, absent) &&
      std::getenv("FETTLE_PYTHON") == nullptr) {
    options.renderer.python = FETTLE_BUILD_PYTHON;
  }
  options.renderer.script =
      find_script(program_folder(), FETTLE_SCRIPTS, "render_chat.py");
  return options;
}

sweep::CalibrationData Session::calibration(
    const model::ModelReader& reader, const CalibrationFiles& source) {
  const std::int64_t seq_len = window_tokens(reader.config(), source.seq_len);
  const auto tokenizer = this->tokenizer(reader.folder());
  auto data = sweep::load_calibration(
      data_files(source.data),
      {tokenizer,
       sample_options(reader, source.flags),
       seq_len,
       source.scored_only},
      source.tokens,
      seed());
  if (group_->size() > 1) {
    require_same("the data", sweep::checksum(data.sequences));
  }
  tell_data(
      data.counts,
      {.seq_len = seq_len,
       .wanted = source.tokens,
       .used = sweep::count_tokens(data.sequences)});
  return data;
}

void Session::tell_data(
    const std::vector<text::SourceCounts>& counts, const DataUse& use) {
  if (counts.empty()) return;
  reporter_->note(data_text(counts, use));
  data_ = data_json(counts, use);
}

void Session::add_data(Json& result) const {
  if (!data_.is_null()) result["data"] = data_;
}

artifact::Making Session::making() const {
  return {
      options_.command,
      {{"Fettle",
        fmt::format("{}, libtorch {}", artifact::version(), TORCH_VERSION)},
       {"device",
        fmt::format(
            "{}, {} threads, computed in {}",
            parse_device(options_.device).name(),
            at::get_num_threads(),
            options_.compute_dtype == "auto"
                ? (device_.is_cpu() ? "float32" : "bfloat16")
                : options_.compute_dtype)},
       {"seed", std::to_string(options_.seed)}}};
}

void Session::add_peaks(Json& result) const {
  result["peak_ram_bytes"] = peak_resident_memory();
  result["peak_vram_bytes"] =
      device_.is_cpu() ? 0 : kernels::peak_device_memory(device_);
  if (group_->size() == 1) return;
  const Json mine{
      {"host", host_name()},
      {"peak_ram_bytes", result["peak_ram_bytes"]},
      {"peak_vram_bytes", result["peak_vram_bytes"]},
      {"sent_bytes", group_->sent_bytes()}};
  result["ranks"] = Json::array();
  for (const std::string& rank : group_->gather(mine.dump())) {
    result["ranks"].push_back(Json::parse(rank));
  }
  if (team_.ranks() > 1) result["shards"] = team_.shards;
}

std::int64_t window_tokens(
    const model::ModelConfig& config, std::int64_t asked) {
  constexpr std::int64_t kUsual = 512;
  const std::int64_t most = config.max_position;
  if (asked == 0) return most > 0 ? std::min(kUsual, most) : kUsual;
  if (most > 0 && asked > most) {
    throw UserError(
        "cli",
        "--seq-len",
        fmt::format(
            "expected at most the model's {} positions, found {}; give fewer",
            most,
            asked));
  }
  return asked;
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
