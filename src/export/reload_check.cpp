// SPDX-License-Identifier: Apache-2.0
#include "export/reload_check.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/rng.h"
#include "export/value_check.h"
#include "sweep/micro_batches.h"
#include "sweep/sweep.h"

namespace fettle::exporter {
namespace {

struct Outputs {
  at::Tensor hidden;  // [N, H] fp32
  at::Tensor logits;  // [N, V] fp32
};

std::vector<model::Sequence> random_sequences(
    std::int64_t vocab_size, const ExportOptions& options) {
  Rng rng(options.seed);
  std::vector<model::Sequence> sequences(options.check_sequences);
  for (model::Sequence& sequence : sequences) {
    for (std::int64_t t = 0; t < options.check_tokens; ++t) {
      sequence.ids.push_back(static_cast<std::int32_t>(
          rng.below(static_cast<std::uint64_t>(vocab_size))));
    }
    sequence.labels = sequence.ids;
  }
  return sequences;
}

Outputs run_model(model::CausalLm& model, const ExportOptions& options) {
  const at::NoGradGuard no_grad;
  const std::int64_t vocab_size = model.config().vocab_size;
  const auto batches = sweep::micro_batches(
      random_sequences(vocab_size, options),
      options.check_sequences * options.check_tokens,
      vocab_size);
  sweep::Sweep sweep(model, batches, {});
  sweep.forward({}, {});
  std::vector<at::Tensor> hidden;
  for (std::size_t m = 0; m < batches.size(); ++m) {
    hidden.push_back(sweep.hidden(static_cast<std::int64_t>(m)));
  }
  const at::Tensor all = at::cat(hidden);
  return {
      all.to(at::kFloat).cpu(), model::logits(model, all).to(at::kFloat).cpu()};
}

// [N, V] each.
double mean_kl(const at::Tensor& teacher, const at::Tensor& model) {
  // Some rows at a time: in double, all take more than the two models.
  constexpr std::int64_t kRows = 16;
  std::vector<at::Tensor> rows;
  for (std::int64_t first = 0; first < teacher.size(0); first += kRows) {
    const std::int64_t count = std::min(kRows, teacher.size(0) - first);
    const auto log_probs = [&](const at::Tensor& logits) {
      return logits.narrow(0, first, count).to(at::kDouble).log_softmax(-1);
    };
    const at::Tensor from = log_probs(teacher);
    rows.push_back((from.exp() * (from - log_probs(model))).sum(-1));
  }
  return std::max(at::cat(rows).mean().item<double>(), 0.0);
}

// NaN, which no equality holds for, among the rest.
bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) {
    return false;
  }
  return a.contiguous().view(at::kByte).equal(b.contiguous().view(at::kByte));
}

}  // namespace

void check_tensors(
    const std::filesystem::path& folder, const ExportedWeights& expected) {
  const model::ModelReader reader(folder);
  for (const model::WeightId& id : model::model_weights(reader.config())) {
    const at::Tensor found = reader.read_stored(id);
    const at::Tensor meant = expected.tensor(id);
    if (same_bits(found, meant)) continue;
    throw InternalError(
        (folder / model::weight_name(reader.config(), id)).string() +
        " read back differs from what was written");
  }
}

ForwardDifference forward_difference(
    const std::filesystem::path& source,
    const std::filesystem::path& folder,
    const ExportOptions& options) {
  Outputs expected;
  {
    model::CausalLm model(source, options.check);
    const auto owns = [&](model::Role role) {
      return model::weight_row(model.config(), role).own;
    };
    using model::Role;
    model.set_patch([&](std::int64_t, model::LayerWeights& weights) {
      if (options.drop_constants && owns(Role::kExpertConstant)) {
        weights.experts.constant.reset();
      }
      if (options.drop_condensers) {
        if (owns(Role::kRouterBias)) weights.router_bias.reset();
        weights.condensers.clear();
      }
    });
    expected = run_model(model, options);
  }
  if (!expected.logits.isfinite().all().item<bool>()) {
    throw UserError(
        "export",
        source.string(),
        "expected finite outputs on random tokens, found NaN or infinity; the "
        "model is damaged, or its tuning diverged");
  }
  model::CausalLm model(folder, options.check);
  const Outputs found = run_model(model, options);
  return {
      std::max(
          relative_error(found.hidden, expected.hidden),
          relative_error(found.logits, expected.logits)),
      mean_kl(expected.logits, found.logits)};
}

}  // namespace fettle::exporter
