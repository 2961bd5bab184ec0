// SPDX-License-Identifier: Apache-2.0
// Budgets are promises: what a plan allows, and what it refuses.
#include "sweep/plan.h"

#include <ATen/Parallel.h>

#include <catch2/catch.hpp>
#include <string>

#include "../artifact/tiny_model.h"
#include "core/error.h"
#include "sweep/head.h"

using namespace fettle;
using namespace fettle::sweep;
using Catch::Matchers::Contains;
using fettle::testing::TinyModel;

namespace {

constexpr std::int64_t kMiB = 1 << 20;

Budget of_ram(std::int64_t bytes) {
  Budget budget;
  budget.ram = bytes;
  return budget;
}

Workload of_tokens(std::int64_t tokens, std::int64_t longest) {
  Workload workload;
  workload.tokens = tokens;
  workload.longest_sequence = longest;
  return workload;
}

// Mebibytes that the refusal of `budget` names.
std::int64_t smallest_named(
    const model::ModelReader& reader,
    const Workload& workload,
    const Budget& budget) {
  try {
    plan_sweep(reader, workload, budget);
  } catch (const UserError& error) {
    const std::string text = error.what();
    const std::string before = "smallest that works is ";
    return std::stoll(text.substr(text.find(before) + before.size()));
  }
  return 0;
}

class PlanOfTinyModel {
 protected:
  TinyModel tiny;
  model::ModelReader reader{tiny.path()};
};

}  // namespace

TEST_CASE_METHOD(PlanOfTinyModel, "the smallest budget that is named works") {
  for (const bool backward : {false, true}) {
    Workload workload = of_tokens(1 << 16, 1 << 12);
    workload.backward = backward;
    const std::int64_t least =
        smallest_named(reader, workload, of_ram(1 * kMiB));
    REQUIRE(least > 1);
    const SweepPlan plan = plan_sweep(reader, workload, of_ram(least * kMiB));
    CHECK(plan.ram_bytes() <= least * kMiB);
    CHECK(
        smallest_named(reader, workload, of_ram((least - 2) * kMiB)) == least);
  }
}

TEST_CASE_METHOD(PlanOfTinyModel, "a plan keeps to its budget of RAM") {
  Workload workload = of_tokens(1 << 18, 512);
  workload.backward = true;
  for (const std::int64_t mebibytes : {256, 400, 800, 4000}) {
    const SweepPlan plan =
        plan_sweep(reader, workload, of_ram(mebibytes * kMiB));
    CHECK(plan.ram_bytes() <= mebibytes * kMiB);
    CHECK(plan.micro_batch_tokens >= workload.longest_sequence);
    CHECK(plan.micro_batch_tokens <= workload.micro_batch_tokens);
  }
}

TEST_CASE_METHOD(
    PlanOfTinyModel, "a layer is read ahead where there is room for two") {
  Workload workload = of_tokens(4096, 512);
  workload.hold_globals = true;
  const SweepPlan least = least_plan(reader, workload);
  CHECK_FALSE(least.read_ahead);
  CHECK_FALSE(least.model_options().read_ahead);
  std::int64_t layer = 0;
  std::int64_t all = 0;
  for (const auto& one :
       model::loaded_bytes(reader, workload.compute_type).layers) {
    layer = std::max(layer, one.kept);
    all += one.kept;
  }
  const auto with = [&](std::int64_t bytes) {
    const std::int64_t budget = (least.ram_bytes() + bytes) * 100 / 92 + 100;
    return plan_sweep(reader, workload, of_ram(budget));
  };
  CHECK_FALSE(with(layer / 2).read_ahead);
  const SweepPlan two = with(layer);
  CHECK(two.read_ahead);
  CHECK(two.layer_bytes == least.layer_bytes + layer);
  // Better all of them kept, one after the other, than some read every time.
  const std::int64_t boundaries = boundary_bytes(reader.config(), workload);
  const SweepPlan kept = with(all + boundaries);
  CHECK(kept.resident_bytes == all);
  CHECK_FALSE(kept.read_ahead);
  CHECK(with(all + boundaries + layer).read_ahead);
}

TEST_CASE_METHOD(PlanOfTinyModel, "what RAM can't hold goes to the disk") {
  const Workload workload = of_tokens(1 << 22, 512);
  const SweepPlan tight = plan_sweep(reader, workload, of_ram(256 * kMiB));
  const SweepPlan wide = plan_sweep(reader, workload, of_ram(64LL << 30));
  CHECK(tight.spilled_bytes > 0);
  CHECK(wide.spilled_bytes == 0);
  CHECK(tight.spilled_bytes + tight.activation_bytes == wide.activation_bytes);
  const SweepOptions options = tight.sweep_options(nullptr);
  CHECK(options.activations.ram_bytes == tight.activation_bytes);
}

TEST_CASE_METHOD(PlanOfTinyModel, "graphs are kept only where all layers fit") {
  Workload workload = of_tokens(1 << 14, 512);
  CHECK(plan_sweep(reader, workload, of_ram(8LL << 30)).graph_bytes == 0);
  workload.backward = true;
  const SweepPlan wide = plan_sweep(reader, workload, of_ram(8LL << 30));
  CHECK(wide.graph_bytes > 0);
  CHECK(wide.sweep_options(nullptr).keep_graphs);
  // Eight hundredths of a budget are for what allocators waste.
  const std::int64_t without =
      (wide.ram_bytes() - wide.graph_bytes / 2) * 100 / 92;
  const SweepPlan tight = plan_sweep(reader, workload, of_ram(without));
  CHECK(tight.graph_bytes == 0);
  CHECK_FALSE(tight.sweep_options(nullptr).keep_graphs);
}

TEST_CASE_METHOD(PlanOfTinyModel, "what a stage keeps is part of the plan") {
  Workload workload = of_tokens(4096, 512);
  const std::int64_t plain = least_plan(reader, workload).ram_bytes();
  workload.add(StageMemory{.bytes = 7 * kMiB, .device_bytes = 5 * kMiB});
  CHECK(least_plan(reader, workload).ram_bytes() == plain + 7 * kMiB);
}

TEST_CASE_METHOD(PlanOfTinyModel, "a model beside another adds to its memory") {
  Workload workload = of_tokens(4096, 512);
  const SweepPlan other = least_plan(reader, workload);
  const std::int64_t alone = other.ram_bytes();
  workload.add(other);
  // The program is there once.
  CHECK(
      least_plan(reader, workload).ram_bytes() ==
      2 * alone - other.runtime_bytes);
}

TEST_CASE_METHOD(
    PlanOfTinyModel, "a card's budget is refused by its own name") {
  Workload workload = of_tokens(4096, 512);
  workload.device = at::Device(at::kCUDA, 0);
  const Budget narrow{.ram = 8LL << 30, .vram = 1 * kMiB};
  CHECK_THROWS_WITH(
      plan_sweep(reader, workload, narrow), Contains("[plan] --vram"));
  const std::int64_t least = smallest_named(reader, workload, narrow);
  const SweepPlan plan =
      plan_sweep(reader, workload, {.ram = 8LL << 30, .vram = least * kMiB});
  CHECK(plan.vram_bytes() <= least * kMiB);
  CHECK_THROWS_WITH(
      plan_sweep(reader, workload, {.ram = 1 * kMiB, .vram = 1LL << 30}),
      Contains("[plan] --ram"));
}

TEST_CASE("a workload of several sets is their largest") {
  Workload workload;
  workload.add(fettle::testing::random_data(4, 10, 50));
  workload.add(fettle::testing::random_data(1, 25, 50));
  CHECK(workload.tokens == 40);
  CHECK(workload.longest_sequence == 25);
  workload.add(fettle::testing::random_data(20, 10, 50), 60);
  CHECK(workload.tokens == 60);
}

TEST_CASE_METHOD(
    PlanOfTinyModel,
    "a model that does not exist yet is planned by its forms") {
  const Workload workload = of_tokens(4096, 512);
  const std::int64_t plain = least_plan(reader, workload).layer_bytes;
  // Every matrix in four bits: a layer of these, and an eighth.
  const auto quarter = [&](const model::WeightId& id) {
    model::WeightForm form = reader.form(id);
    if (model::role_info(id.role).is_packable()) {
      form.packed_bytes = model::weight_numel(reader.config(), id) / 2;
    }
    return form;
  };
  Workload packed = workload;
  packed.keep_packed = true;
  const SweepPlan least = least_plan(reader.config(), quarter, packed);
  CHECK(least.layer_bytes < plain / 2);
  const auto loaded =
      model::loaded_bytes(reader.config(), quarter, workload.compute_type);
  std::int64_t widest = 0;
  for (const auto& layer : loaded.layers) {
    widest = std::max(widest, layer.kept);
    CHECK(layer.kept < layer.unpacked);
  }
  CHECK(least.layer_bytes == widest + widest / 8);
}

TEST_CASE_METHOD(
    PlanOfTinyModel, "decoding plans for the logits and states that it has") {
  Workload workload = of_tokens(32, 32);
  const SweepPlan losses = least_plan(reader, workload);
  workload.logit_rows = 1;
  workload.cached_tokens = 32;
  const SweepPlan one = least_plan(reader, workload);
  const std::int64_t vocab = reader.config().vocab_size;
  // 512 rows or one, three tensors of fp32 at a time.
  CHECK(losses.head_bytes - one.head_bytes == 511 * 3 * vocab * 4);
  workload.cached_sequences = 3;
  CHECK(least_plan(reader, workload).cache_bytes == 3 * one.cache_bytes);
}

TEST_CASE_METHOD(PlanOfTinyModel, "a budget for a plan's bytes holds them") {
  const Workload workload = of_tokens(4096, 512);
  const SweepPlan least = least_plan(reader, workload);
  const std::int64_t budget = budget_for(least.ram_bytes());
  CHECK(budget % kMiB == 0);
  CHECK_NOTHROW(
      plan_sweep(reader.config(), reader.forms(), workload, of_ram(budget)));
  CHECK_THROWS(plan_sweep(reader, workload, of_ram(budget - kMiB)));
  // The activations of two boundaries, beside which all stays.
  Workload holding = workload;
  holding.hold_globals = true;
  const SweepPlan held = least_plan(reader, holding);
  std::int64_t all =
      held.ram_bytes() + boundary_bytes(reader.config(), workload);
  for (const auto& layer :
       model::loaded_bytes(reader, workload.compute_type).layers) {
    all += layer.kept;
  }
  const SweepPlan whole = plan_sweep(reader, workload, of_ram(budget_for(all)));
  CHECK(whole.spilled_bytes == 0);
  CHECK(whole.hold_globals);
  CHECK(
      whole.resident_bytes + held.ram_bytes() + whole.activation_bytes == all);
}

TEST_CASE("logits of a large vocabulary are few at a time") {
  CHECK(head_rows(2048) == 512);
  CHECK(head_rows(65536) == 512);
  CHECK(head_rows(201088) == 160);
  CHECK(head_rows(std::int64_t{1} << 30) == 32);
}

TEST_CASE("embeddings and head are held where only layers give way") {
  const TinyModel tiny({.changes = {{"vocab_size", 40000}}});
  const model::ModelReader reader(tiny.path());
  Workload workload = of_tokens(4096, 512);
  const SweepPlan least = least_plan(reader, workload);
  const auto globals = model::global_bytes(
      reader.config(), reader.forms(), at::kFloat, /*decodes=*/false);
  CHECK(least.global_bytes == globals.norm);
  CHECK(
      least.head_bytes ==
      globals.head + logit_bytes(reader.config(), head_rows(40000)));
  const SweepPlan tight =
      plan_sweep(reader, workload, of_ram(budget_for(least.ram_bytes())));
  CHECK_FALSE(tight.hold_globals);
  CHECK_FALSE(tight.model_options().hold_globals);
  const SweepPlan wide = plan_sweep(reader, workload, of_ram(8LL << 30));
  CHECK(wide.model_options().hold_globals);
  CHECK(wide.global_bytes == globals.all);

  workload.hold_globals = true;
  const SweepPlan forced = least_plan(reader, workload);
  CHECK(forced.global_bytes == globals.all);
  CHECK(
      forced.computing_bytes() == std::max(
                                      least.layer_bytes + least.working_bytes,
                                      least.head_bytes - globals.head));
  CHECK_THROWS_AS(
      plan_sweep(
          reader, workload, of_ram(budget_for(forced.ram_bytes()) - 2 * kMiB)),
      UserError);
  CHECK(plan_sweep(reader, workload, of_ram(budget_for(forced.ram_bytes())))
            .hold_globals);
}

TEST_CASE("a stage that asks nothing of the head has no room for it") {
  const TinyModel tiny;
  const model::ModelReader reader(tiny.path());
  Workload workload = of_tokens(64, 32);
  const SweepPlan asking = least_plan(reader, workload);
  REQUIRE(asking.head_bytes > 0);
  workload.headless = true;
  const SweepPlan silent = least_plan(reader, workload);
  CHECK(silent.head_bytes == 0);
  CHECK(
      asking.computing_bytes() - silent.computing_bytes() ==
      std::max<std::int64_t>(
          asking.head_bytes - asking.layer_bytes - asking.working_bytes, 0));
}

TEST_CASE("a sweep fits where planning it is not refused") {
  const TinyModel tiny;
  const model::ModelReader reader(tiny.path());
  const Workload workload = of_tokens(64, 32);
  const std::int64_t least =
      budget_for(least_plan(reader, workload).ram_bytes());
  CHECK(fits(reader, workload, of_ram(least)));
  CHECK_NOTHROW(plan_sweep(reader, workload, of_ram(least)));
  CHECK_FALSE(fits(reader, workload, of_ram(least - 2 * kMiB)));
  CHECK_THROWS_AS(
      plan_sweep(reader, workload, of_ram(least - 2 * kMiB)), UserError);
}

TEST_CASE("experts are taken apart where whole layers find no room") {
  // 100 MB of experts a layer, 25 each, of which each thread has one.
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const model::ModelConfig config =
      model::testing::sample("qwen3_moe", {{"moe_intermediate_size", 1 << 18}});
  const model::WeightForms forms = [](const model::WeightId&) {
    return model::WeightForm{};
  };
  Workload workload = of_tokens(64, 32);
  const auto plan = [&](std::int64_t bytes) {
    return plan_sweep(config, forms, workload, of_ram(bytes));
  };
  const SweepPlan whole = least_plan(config, forms, workload);
  const std::int64_t room = budget_for(whole.ram_bytes());
  CHECK_THROWS_AS(plan(room - 2 * kMiB), UserError);

  workload.takes_experts_apart = true;
  const SweepPlan least = least_plan(config, forms, workload);
  REQUIRE(least.experts_apart);
  CHECK(least.ram_bytes() < whole.ram_bytes());
  CHECK_FALSE(plan(room).experts_apart);
  const SweepPlan parted = plan(room - 2 * kMiB);
  CHECK(parted.experts_apart);
  CHECK(parted.model_options().experts_apart);
  CHECK(parted.ram_bytes() <= room - 2 * kMiB);

  // What only whole layers take.
  workload.extra_bytes = kMiB;
  workload.extra_whole_bytes = 64 * kMiB;
  CHECK(plan(room).experts_apart);
  CHECK(plan(room).stage_bytes == kMiB);
  CHECK(
      least_plan(config, forms, workload).ram_bytes() ==
      least.ram_bytes() + kMiB);
  const SweepPlan roomy = plan(room + 128 * kMiB);
  CHECK_FALSE(roomy.experts_apart);
  CHECK(roomy.stage_bytes == 65 * kMiB);
  workload.extra_bytes = workload.extra_whole_bytes = 0;

  // A decoded token reads what it has chosen, unless all is there.
  workload.keep_packed = true;
  workload.logit_rows = 1;
  CHECK(plan(room).experts_apart);
  CHECK_FALSE(plan(8LL << 30).experts_apart);
  at::set_num_threads(threads);
}
