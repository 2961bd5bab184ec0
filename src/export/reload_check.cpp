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

}  // namespace

void check_tensors(
    const std::filesystem::path& folder, const ExportedWeights& expected) {
  const model::ModelReader reader(folder);
  for (const model::WeightId& id : model::model_weights(reader.config())) {
    const at::Tensor found = reader.read_stored(id);
    const at::Tensor meant = expected.tensor(id);
    if (found.scalar_type() == meant.scalar_type() && found.equal(meant)) {
      continue;
    }
    throw InternalError(
        (folder / model::weight_name(reader.config(), id)).string() +
        " read back differs from what was written");
  }
}

double forward_error(
    const std::filesystem::path& source,
    const std::filesystem::path& folder,
    const ExportOptions& options) {
  Outputs expected;
  {
    model::CausalLm model(source, options.check);
    model.set_patch([&](std::int64_t, model::LayerWeights& weights) {
      if (options.drop_constants) weights.experts.constant.reset();
      if (options.drop_condensers) {
        weights.router_bias.reset();
        weights.condensers.clear();
      }
    });
    expected = run_model(model, options);
  }
  model::CausalLm model(folder, options.check);
  const Outputs found = run_model(model, options);
  return std::max(
      relative_error(found.hidden, expected.hidden),
      relative_error(found.logits, expected.logits));
}

}  // namespace fettle::exporter
