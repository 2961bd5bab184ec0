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
  std::int64_t fetched = 0;
  std::int64_t in_use = 0;
  std::int64_t unpacked = 0;  // beside what is kept packed
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const std::int64_t bytes = reader.layer_bytes(l, type);
    const std::int64_t dense = reader.unpacked_bytes(l, type);
    fetched = std::max(fetched, bytes);
    in_use = std::max(in_use, dense == bytes ? bytes : bytes + dense);
    unpacked += dense == bytes ? 0 : dense;
    s.all_layers += bytes;
  }
  // In use, being fetched, and what reading it stages at most.
  s.layers = workload.keep_packed ? 2 * fetched : in_use + fetched;
  s.layers += fetched / 8;
  s.per_token = working_values(config, workload.backward) * bytes_of(type);
  s.head = 3 * kHeadRows * config.vocab_size * 4;
  const std::int64_t boundary =
      workload.tokens * config.hidden_size * bytes_of(type);
  s.activations =
      workload.backward ? (config.num_layers() + 1) * boundary : 2 * boundary;
  // Five halves of what autograd saves are at work in a backward pass.
  s.graphs = workload.tokens * config.num_layers() * s.per_token * 2 / 5 +
             workload.extra_graph_bytes + unpacked;
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
  const std::int64_t extra =
      workload.device.is_cpu() ? 0 : workload.extra_vram_bytes;
  return global_bytes + layer_bytes + resident_bytes + working_bytes + extra;
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
  return {
      workload.device,
      workload.compute_type,
      resident_bytes,
      workload.keep_packed};
}

SweepOptions SweepPlan::sweep_options(Reporter* reporter) const {
  SweepOptions options;
  options.activations.ram_bytes = activation_bytes;
  options.activations.scratch = workload.scratch;
  options.reporter = reporter;
  options.keep_graphs = graph_bytes > 0;
  return options;
}

namespace {

std::int64_t smallest_batch(const Workload& workload) {
  return std::max<std::int64_t>(workload.longest_sequence, 1);
}

// Where nothing is said, half of what is free: others live here too.
double usable_ram(const Budget& budget) {
  return budget.ram ? static_cast<double>(*budget.ram) * kUsable
                    : static_cast<double>(available_memory()) / 2;
}

// Sizes the micro-batch to half of `room`, but never below one sequence.
void size_micro_batch(SweepPlan& plan, const Sizes& sizes, double room) {
  const Workload& work = plan.workload;
  const auto affordable = static_cast<std::int64_t>(
      room * 0.5 / static_cast<double>(sizes.per_token));
  plan.micro_batch_tokens = std::max(
      smallest_batch(work), std::min(work.micro_batch_tokens, affordable));
  const std::int64_t batch = std::min(
      plan.micro_batch_tokens, std::max(work.tokens, smallest_batch(work)));
  plan.working_bytes = batch * sizes.per_token + sizes.head;
}

// Boundary activations take what RAM is left, the disk the rest.
void place_activations(SweepPlan& plan, const Sizes& sizes, double room) {
  const auto left = std::max<std::int64_t>(static_cast<std::int64_t>(room), 0);
  plan.activation_bytes = std::min(sizes.activations, left);
  plan.spilled_bytes = sizes.activations - plan.activation_bytes;
}

void plan_on_cpu(SweepPlan& plan, const Sizes& sizes, const Budget& budget) {
  const double total = usable_ram(budget);
  const auto fixed = static_cast<double>(
      kRuntimeBytes + plan.workload.extra_bytes + sizes.globals + sizes.layers +
      sizes.head);
  const double needed =
      fixed +
      static_cast<double>(smallest_batch(plan.workload) * sizes.per_token);
  if (needed > total) {
    too_small("--ram", static_cast<std::int64_t>(total), needed / kUsable);
  }
  size_micro_batch(plan, sizes, total - fixed);
  const double left =
      total - fixed - static_cast<double>(plan.working_bytes - sizes.head);
  place_activations(plan, sizes, left);
  const auto spare = static_cast<std::int64_t>(left) - plan.activation_bytes;
  plan.resident_bytes = std::clamp<std::int64_t>(spare, 0, sizes.all_layers);
  if (plan.workload.backward && plan.resident_bytes == sizes.all_layers &&
      sizes.graphs <= spare - plan.resident_bytes) {
    plan.graph_bytes = sizes.graphs;
  }
}

void plan_on_device(SweepPlan& plan, const Sizes& sizes, const Budget& budget) {
  const double ram = usable_ram(budget);
  const auto host = static_cast<double>(
      kRuntimeBytes + plan.workload.extra_bytes + sizes.layers);
  if (host > ram) {
    too_small("--ram", static_cast<std::int64_t>(ram), host / kUsable);
  }
  place_activations(plan, sizes, ram - host);
  if (!budget.vram) {
    plan.micro_batch_tokens = std::max(
        smallest_batch(plan.workload), plan.workload.micro_batch_tokens);
    plan.working_bytes = plan.micro_batch_tokens * sizes.per_token + sizes.head;
    return;
  }
  const double vram = static_cast<double>(*budget.vram) * kUsable;
  const auto fixed = static_cast<double>(
      sizes.globals + sizes.layers + sizes.head +
      plan.workload.extra_vram_bytes);
  const double needed =
      fixed +
      static_cast<double>(smallest_batch(plan.workload) * sizes.per_token);
  if (needed > vram) too_small("--vram", *budget.vram, needed / kUsable);
  size_micro_batch(plan, sizes, vram - fixed);
  const auto left = static_cast<std::int64_t>(vram) - plan.vram_bytes();
  plan.resident_bytes = std::clamp<std::int64_t>(left, 0, sizes.all_layers);
}

}  // namespace

SweepPlan plan_sweep(
    const model::ModelReader& reader,
    const Workload& workload,
    const Budget& budget) {
  const Sizes sizes = sizes_of(reader, workload);
  SweepPlan plan;
  plan.workload = workload;
  plan.runtime_bytes = kRuntimeBytes;
  plan.global_bytes = sizes.globals;
  plan.layer_bytes = sizes.layers;
  if (workload.device.is_cpu()) {
    plan_on_cpu(plan, sizes, budget);
  } else {
    plan_on_device(plan, sizes, budget);
  }
  return plan;
}

}  // namespace fettle::sweep
