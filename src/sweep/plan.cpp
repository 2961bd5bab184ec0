// SPDX-License-Identifier: Apache-2.0
#include "sweep/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/bytes.h"
#include "core/error.h"
#include "core/memory.h"
#include "kernels/device_backend.h"
#include "sweep/plan_sizes.h"
#include "sweep/require_ram.h"

namespace fettle::sweep {
namespace {

// Measured of a run on a tiny model: libtorch, allocator and thread stacks.
constexpr std::int64_t kRuntimeBytes = std::int64_t{192} << 20;
// Allocators round up and fragment: what is planned stays this far below.
constexpr double kUsable = 0.92;

}  // namespace

std::int64_t budget_for(std::int64_t bytes) {
  const double least = static_cast<double>(bytes) / kUsable;
  return ((static_cast<std::int64_t>(least) >> 20) + 1) << 20;
}

std::int64_t SweepPlan::ram_bytes() const {
  const std::int64_t host =
      runtime_bytes + activation_bytes + graph_bytes + stage_bytes;
  return workload.device.is_cpu() ? host + vram_bytes() : host + staging_bytes;
}

std::int64_t SweepPlan::vram_bytes() const {
  const std::int64_t extra =
      workload.device.is_cpu() ? 0 : workload.extra_vram_bytes;
  return library_bytes + global_bytes + computing_bytes() + resident_bytes +
         cache_bytes + card_activation_bytes + extra;
}

std::string SweepPlan::summary() const {
  return fmt::format(
      "plan: {} in all: program {} (and {} of a card), embeddings and head {}, "
      "{} {}, layers kept {}, micro-batch of {} tokens {}, {} {} without a "
      "layer, cache {}, "
      "activations {} (and {} on the card, {} on disk), graphs {}, stage {}",
      format_bytes(ram_bytes()),
      format_bytes(runtime_bytes),
      format_bytes(library_bytes),
      format_bytes(global_bytes),
      experts_apart ? "layers without experts, and an expert a thread"
      : read_ahead  ? "two layers"
                    : "a layer",
      format_bytes(layer_bytes),
      format_bytes(resident_bytes),
      micro_batch_tokens,
      format_bytes(working_bytes),
      hold_globals ? "logits" : "head and logits",
      format_bytes(head_bytes),
      format_bytes(cache_bytes),
      format_bytes(activation_bytes),
      format_bytes(card_activation_bytes),
      format_bytes(spilled_bytes),
      format_bytes(graph_bytes),
      format_bytes(stage_bytes));
}

model::ModelOptions SweepPlan::model_options() const {
  return {
      workload.device,
      workload.compute_type,
      resident_bytes,
      workload.keep_packed,
      read_ahead,
      hold_globals,
      experts_apart};
}

SweepOptions SweepPlan::sweep_options(Reporter* reporter) const {
  SweepOptions options;
  options.activations.device_bytes = card_activation_bytes;
  options.activations.ram_bytes = activation_bytes;
  options.activations.scratch = workload.scratch;
  options.reporter = reporter;
  options.keep_graphs = graph_bytes > 0;
  options.team = workload.team;
  return options;
}

namespace {

std::int64_t smallest_batch(const Workload& workload) {
  return std::max<std::int64_t>(workload.longest_sequence, 1);
}

// Memory of one kind.
struct Memory {
  const char* option;    // that bounds it
  std::int64_t allowed;  // bytes, as the option says
  double usable;

  // Throws UserError unless `bytes` fit.
  void require(double bytes) const {
    if (bytes <= usable) return;
    throw UserError(
        "plan",
        option,
        fmt::format(
            "{} is too little for this model and what is to be done; the "
            "smallest that works is {}MiB",
            format_bytes(allowed),
            budget_for(static_cast<std::int64_t>(bytes)) >> 20));
  }
};

Memory memory(const char* option, std::int64_t allowed) {
  return {option, allowed, static_cast<double>(allowed) * kUsable};
}

// Where nothing is said, half of what is free: others live here too.
Memory ram(const Budget& budget) {
  if (budget.ram) return memory("--ram", *budget.ram);
  const auto half = static_cast<std::int64_t>(available_memory() / 2);
  return {"--ram", half, static_cast<double>(half)};
}

// Sizes the micro-batch to half of what `fixed` bytes and a layer leave, but
// never below one sequence.
void size_micro_batch(
    SweepPlan& plan, const Sizes& sizes, const Memory& room, double fixed) {
  const Workload& work = plan.workload;
  const std::int64_t smallest = smallest_batch(work);
  room.require(fixed + static_cast<double>(plan.computing_bytes()));
  const auto affordable = static_cast<std::int64_t>(
      (room.usable - fixed - static_cast<double>(plan.layer_bytes)) * 0.5 /
      static_cast<double>(sizes.per_token));
  plan.micro_batch_tokens =
      std::max(smallest, std::min(work.micro_batch_tokens, affordable));
  const std::int64_t batch =
      std::min(plan.micro_batch_tokens, std::max(work.tokens, smallest));
  plan.working_bytes = batch * sizes.per_token;
}

// Boundary activations that no card holds take what RAM is left, the disk the
// rest.
void place_activations(SweepPlan& plan, const Sizes& sizes, double room) {
  const auto left = std::max<std::int64_t>(static_cast<std::int64_t>(room), 0);
  const std::int64_t all = sizes.activations - plan.card_activation_bytes;
  plan.activation_bytes = std::min(all, left);
  plan.spilled_bytes = all - plan.activation_bytes;
}

// Layers stay between sweeps as far as `left` bytes go.
void keep_layers(SweepPlan& plan, const Sizes& sizes, std::int64_t left) {
  plan.resident_bytes = std::clamp<std::int64_t>(left, 0, sizes.all_layers);
}

void plan_on_cpu(SweepPlan& plan, const Sizes& sizes, const Budget& budget) {
  const Memory host = ram(budget);
  const auto fixed = static_cast<double>(
      kRuntimeBytes + sizes.stage + sizes.globals + sizes.cache);
  size_micro_batch(plan, sizes, host, fixed);
  const double left =
      host.usable - fixed - static_cast<double>(plan.computing_bytes());
  place_activations(plan, sizes, left);
  const auto spare = static_cast<std::int64_t>(left) - plan.activation_bytes;
  keep_layers(plan, sizes, spare);
  if (plan.workload.backward && plan.resident_bytes == sizes.all_layers &&
      sizes.graphs <= spare - plan.resident_bytes) {
    plan.graph_bytes = sizes.graphs;
  }
}

// Activations come before layers: a copy of one is waited for, a layer is
// fetched behind the work on the one before it.
void plan_on_device(SweepPlan& plan, const Sizes& sizes, const Budget& budget) {
  FETTLE_ASSERT(budget.vram.has_value());
  const Memory card = memory("--vram", *budget.vram);
  const auto fixed = static_cast<double>(
      plan.library_bytes + sizes.globals + sizes.cache +
      plan.workload.extra_vram_bytes);
  size_micro_batch(plan, sizes, card, fixed);
  const auto left = [&] {
    return static_cast<std::int64_t>(card.usable) - plan.vram_bytes();
  };
  plan.card_activation_bytes =
      std::clamp<std::int64_t>(left(), 0, sizes.activations);
  keep_layers(plan, sizes, left());

  const Memory host = ram(budget);
  const auto staged =
      static_cast<double>(kRuntimeBytes + sizes.stage + sizes.staging);
  host.require(staged);
  place_activations(plan, sizes, host.usable - staged);
}

SweepPlan least_plan(const Sizes& sizes, const Workload& workload) {
  SweepPlan plan;
  plan.workload = workload;
  plan.runtime_bytes = kRuntimeBytes;
  plan.library_bytes =
      kernels::library_bytes(workload.device, {.backward = workload.backward});
  plan.global_bytes = sizes.globals;
  plan.layer_bytes = sizes.layers;
  plan.head_bytes = sizes.head;
  plan.cache_bytes = sizes.cache;
  plan.staging_bytes = sizes.staging;
  plan.stage_bytes = sizes.stage;
  plan.micro_batch_tokens = smallest_batch(workload);
  plan.working_bytes = plan.micro_batch_tokens * sizes.per_token;
  plan.spilled_bytes = sizes.activations;
  return plan;
}

SweepPlan planned(
    const Sizes& sizes, const Workload& workload, const Budget& budget) {
  SweepPlan plan = least_plan(sizes, workload);
  if (workload.device.is_cpu()) {
    plan_on_cpu(plan, sizes, budget);
  } else {
    plan_on_device(plan, sizes, budget);
  }
  return plan;
}

bool keeps_all(const SweepPlan& plan, const Sizes& sizes) {
  return plan.resident_bytes == sizes.all_layers;
}

// On a card all experts of a layer are computed together.
bool may_take_apart(const Workload& workload) {
  return workload.takes_experts_apart && workload.device.is_cpu();
}

// Where what computes must lie.
bool may_hold(const Budget& budget, const SweepPlan& plan) {
  if (plan.workload.device.is_cpu()) {
    return static_cast<double>(plan.ram_bytes()) <= ram(budget).usable;
  }
  const Memory card = memory("--vram", *budget.vram);
  return static_cast<double>(plan.vram_bytes()) <= card.usable;
}

}  // namespace

SweepPlan least_plan(
    const model::ModelConfig& config,
    const model::WeightForms& forms,
    const Workload& workload) {
  const auto least = [&](bool experts_apart) {
    const Kept kept{workload.hold_globals, experts_apart};
    SweepPlan plan =
        least_plan(sizes_of(config, forms, workload, kept), workload);
    plan.hold_globals = kept.globals;
    plan.experts_apart = experts_apart;
    return plan;
  };
  SweepPlan whole = least(false);
  if (!may_take_apart(workload)) return whole;
  SweepPlan apart = least(true);
  return apart.ram_bytes() < whole.ram_bytes() ? apart : whole;
}

SweepPlan least_plan(
    const model::ModelReader& reader, const Workload& workload) {
  return least_plan(reader.config(), reader.forms(), workload);
}

bool fits(
    const model::ModelReader& reader,
    const Workload& workload,
    const Budget& budget) {
  const SweepPlan least = least_plan(reader, workload);
  return may_hold(budget, least) &&
         static_cast<double>(least.ram_bytes()) <= ram(budget).usable;
}

void require_ram(const Budget& budget, std::int64_t bytes) {
  if (!budget.ram) return;
  ram(budget).require(static_cast<double>(kRuntimeBytes + bytes));
}

SweepPlan plan_sweep(
    const model::ModelReader& reader,
    const Workload& workload,
    const Budget& budget) {
  return plan_sweep(reader.config(), reader.forms(), workload, budget);
}

namespace {

// The plan with these sizes, a layer ahead where that is better; none where
// `budget` does not hold the least.
std::optional<SweepPlan> best_plan(
    Sizes sizes, const Workload& workload, const Budget& budget) {
  const auto fits = [&] {
    return may_hold(budget, least_plan(sizes, workload));
  };
  if (!fits()) return std::nullopt;
  SweepPlan one = planned(sizes, workload, budget);
  // The next layer comes while the last of a decoded token meets the head.
  sizes.layers += sizes.ahead;
  sizes.head += sizes.ahead;
  if (!fits()) return one;
  SweepPlan two = planned(sizes, workload, budget);
  two.read_ahead = true;
  return keeps_all(one, sizes) && !keeps_all(two, sizes) ? one : two;
}

// The best of those that hold embeddings and head and those that don't.
std::optional<SweepPlan> best_plan(
    const model::ModelConfig& config,
    const model::WeightForms& forms,
    const Workload& workload,
    const Budget& budget,
    bool experts_apart) {
  const auto sizes = [&](bool hold_globals) {
    return sizes_of(config, forms, workload, {hold_globals, experts_apart});
  };
  const auto best = [&](bool hold_globals) {
    auto plan = best_plan(sizes(hold_globals), workload, budget);
    if (plan) plan->hold_globals = hold_globals;
    if (plan) plan->experts_apart = experts_apart;
    return plan;
  };
  auto holding = best(true);
  if (workload.hold_globals) return holding;
  auto reading = best(false);
  const auto is_no_worse = [&](const SweepPlan& plan) {
    return keeps_all(plan, sizes(true)) ||
           (plan.read_ahead == reading->read_ahead &&
            plan.micro_batch_tokens == reading->micro_batch_tokens &&
            plan.spilled_bytes <= reading->spilled_bytes);
  };
  return holding && (!reading || is_no_worse(*holding)) ? holding : reading;
}

}  // namespace

SweepPlan plan_sweep(
    const model::ModelConfig& config,
    const model::WeightForms& forms,
    const Workload& workload,
    const Budget& budget) {
  const auto sizes = [&](bool experts_apart) {
    return sizes_of(
        config, forms, workload, {workload.hold_globals, experts_apart});
  };
  const Sizes whole = sizes(false);
  const Sizes apart = sizes(true);
  const auto best = best_plan(config, forms, workload, budget, false);
  const bool decodes = workload.keep_packed;
  const bool part = may_take_apart(workload) && apart.layers < whole.layers &&
                    (!best || (decodes && !keeps_all(*best, whole)));
  const auto parted =
      part ? best_plan(config, forms, workload, budget, true) : std::nullopt;
  if (parted) return *parted;
  if (best) return *best;
  return planned(part ? apart : whole, workload, budget);  // which refuses
}

}  // namespace fettle::sweep
