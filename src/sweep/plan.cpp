// SPDX-License-Identifier: Apache-2.0
#include "sweep/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/bytes.h"
#include "core/error.h"
#include "core/memory.h"
#include "sweep/head.h"

namespace fettle::sweep {
namespace {

// Measured of a run on a tiny model: libtorch, allocator and thread stacks.
constexpr std::int64_t kRuntimeBytes = std::int64_t{192} << 20;
// Allocators round up and fragment: what is planned stays this far below.
constexpr double kUsable = 0.92;

std::int64_t bytes_of(at::ScalarType type) {
  return static_cast<std::int64_t>(at::elementSize(type));
}

// Values alive at once per token while a micro-batch passes a layer: the
// residual stream and its norms, the heads, and the chosen experts' rows. A
// backward pass keeps the recomputed forward's and adds their gradients.
std::int64_t working_values(const model::ModelConfig& config, bool backward) {
  std::int64_t widest = 0;
  for (const auto& layer : config.layers) {
    std::int64_t width = layer.dense_width + layer.shared_width;
    std::int64_t expert = 0;
    for (const std::int64_t w : layer.expert_widths) {
      expert = std::max(expert, w);
    }
    width += layer.top_k * expert;
    widest = std::max(
        widest, layer.top_k * config.hidden_size + (backward ? 3 : 1) * width);
  }
  const auto& a = config.attention;
  const std::int64_t heads = a.heads * (a.head_dim * 4 + a.v_head_dim * 2);
  const std::int64_t forward = 10 * config.hidden_size + heads + widest;
  return backward ? 5 * forward / 2 : forward;
}

struct Sizes {
  std::int64_t globals, layers, all_layers, per_token, head, activations;
  std::int64_t graphs;  // of all tokens in all layers
};

Sizes sizes_of(const model::ModelReader& reader, const Workload& workload) {
  const auto& config = reader.config();
  const auto type = workload.compute_type;
  Sizes s{};
  s.globals = reader.global_bytes(type);
  std::int64_t largest = 0;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const std::int64_t bytes = reader.layer_bytes(l, type);
    largest = std::max(largest, bytes);
    s.all_layers += bytes;
  }
  // In use, being fetched, and what reading it stages at most.
  s.layers = 2 * largest + largest / 8;
  s.per_token = working_values(config, workload.backward) * bytes_of(type);
  s.head = 3 * kHeadRows * config.vocab_size * 4;
  const std::int64_t boundary =
      workload.tokens * config.hidden_size * bytes_of(type);
  s.activations =
      workload.backward ? (config.num_layers() + 1) * boundary : 2 * boundary;
  // Five halves of what autograd saves are at work in a backward pass.
  s.graphs = workload.tokens * config.num_layers() * s.per_token * 2 / 5;
  return s;
}

[[noreturn]] void too_small(
    const char* option, std::int64_t budget, double needed) {
  throw UserError(
      "plan",
      option,
      fmt::format(
          "{} is too little for this model and sequence length; the smallest "
          "that works is {}MiB",
          format_bytes(budget),
          (static_cast<std::int64_t>(needed) >> 20) + 1));
}

}  // namespace

std::int64_t SweepPlan::ram_bytes() const {
  const std::int64_t host =
      runtime_bytes + activation_bytes + graph_bytes + workload.extra_bytes;
  return workload.device.is_cpu() ? host + vram_bytes() : host + layer_bytes;
}

std::int64_t SweepPlan::vram_bytes() const {
  return global_bytes + layer_bytes + resident_bytes + working_bytes;
}

std::string SweepPlan::summary() const {
  return fmt::format(
      "plan: {} in all: program {}, embeddings and head {}, two layers {}, "
      "layers kept {}, micro-batch of {} tokens {}, activations {} (and {} on "
      "disk), graphs {}, stage {}",
      format_bytes(ram_bytes()),
      format_bytes(runtime_bytes),
      format_bytes(global_bytes),
      format_bytes(layer_bytes),
      format_bytes(resident_bytes),
      micro_batch_tokens,
      format_bytes(working_bytes),
      format_bytes(activation_bytes),
      format_bytes(spilled_bytes),
      format_bytes(graph_bytes),
      format_bytes(workload.extra_bytes));
}

model::ModelOptions SweepPlan::model_options() const {
  return {workload.device, workload.compute_type, resident_bytes};
}

SweepOptions SweepPlan::sweep_options(Reporter* reporter) const {
  SweepOptions options;
  options.activations.ram_bytes = activation_bytes;
  options.activations.scratch = workload.scratch;
  options.reporter = reporter;
  options.keep_graphs = graph_bytes > 0;
  return options;
}

SweepPlan plan_sweep(
    const model::ModelReader& reader,
    const Workload& workload,
    const Budget& budget) {
  const Sizes sizes = sizes_of(reader, workload);
  const bool on_cpu = workload.device.is_cpu();
  SweepPlan plan;
  plan.workload = workload;
  plan.runtime_bytes = kRuntimeBytes;
  plan.global_bytes = sizes.globals;
  plan.layer_bytes = sizes.layers;

  const std::int64_t ram = budget.ram.value_or(available_memory());
  const std::int64_t smallest_batch =
      std::max<std::int64_t>(workload.longest_sequence, 1);
  // What a micro-batch, its activations and the layers to keep may share.
  const double ram_total = static_cast<double>(ram) * kUsable;
  const std::int64_t computing = sizes.globals + sizes.layers + sizes.head;
  const std::int64_t fixed_ram = kRuntimeBytes + workload.extra_bytes +
                                 (on_cpu ? computing : sizes.layers);
  const double ram_needed = static_cast<double>(
      fixed_ram + (on_cpu ? smallest_batch * sizes.per_token : 0));
  if (ram_needed > ram_total) too_small("--ram", ram, ram_needed / kUsable);

  double room = ram_total - static_cast<double>(fixed_ram);
  if (!on_cpu && budget.vram) {
    const double vram_total = static_cast<double>(*budget.vram) * kUsable;
    const double needed =
        static_cast<double>(computing + smallest_batch * sizes.per_token);
    if (needed > vram_total) {
      too_small("--vram", *budget.vram, needed / kUsable);
    }
    room = vram_total - static_cast<double>(computing);
  }
  const auto affordable = static_cast<std::int64_t>(
      room * 0.5 / static_cast<double>(sizes.per_token));
  plan.micro_batch_tokens = std::max(
      smallest_batch, std::min(workload.micro_batch_tokens, affordable));
  const std::int64_t batch = std::min(
      plan.micro_batch_tokens, std::max(workload.tokens, smallest_batch));
  plan.working_bytes = batch * sizes.per_token + sizes.head;

  std::int64_t left = static_cast<std::int64_t>(ram_total) - fixed_ram -
                      (on_cpu ? batch * sizes.per_token : 0);
  left = std::max<std::int64_t>(left, 0);
  plan.activation_bytes = std::min(sizes.activations, left);
  plan.spilled_bytes = sizes.activations - plan.activation_bytes;
  if (on_cpu) {
    plan.resident_bytes =
        std::min(sizes.all_layers, left - plan.activation_bytes);
    const std::int64_t spare =
        left - plan.activation_bytes - plan.resident_bytes;
    if (workload.backward && plan.resident_bytes == sizes.all_layers &&
        sizes.graphs <= spare) {
      plan.graph_bytes = sizes.graphs;
    }
  } else if (budget.vram) {
    const auto vram_left =
        static_cast<std::int64_t>(static_cast<double>(*budget.vram) * kUsable) -
        plan.vram_bytes();
    plan.resident_bytes =
        std::clamp<std::int64_t>(vram_left, 0, sizes.all_layers);
  }
  return plan;
}

}  // namespace fettle::sweep
