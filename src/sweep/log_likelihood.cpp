// SPDX-License-Identifier: Apache-2.0
#include "sweep/log_likelihood.h"

#include <algorithm>
#include <iterator>

#include "core/error.h"
#include "ranks/group.h"
#include "sweep/head.h"
#include "sweep/micro_batches.h"
#include "sweep/sweep.h"

namespace fettle::sweep {
namespace {

using Asked = Continuations::Asked;

// The continuations of each sequence.
std::vector<std::vector<std::size_t>> by_sequence(const Continuations& all) {
  std::vector<std::vector<std::size_t>> result(all.sequences().size());
  for (std::size_t i = 0; i < all.asked().size(); ++i) {
    result[all.asked()[i].sequence].push_back(i);
  }
  return result;
}

// Positions of a micro-batch and the tokens to be predicted there; a position
// may stand there more than once.
struct AskedRows {
  std::vector<std::int64_t> rows, targets;
  std::vector<std::size_t> owners;  // which continuation each belongs to

  // Of a sequence that ends before position `end`.
  void add(std::size_t owner, const Asked& asked, std::int64_t end) {
    const auto count = static_cast<std::int64_t>(asked.targets.size());
    for (std::int64_t i = 0; i < count; ++i) {
      rows.push_back(end - count + i);
      targets.push_back(asked.targets[i]);
      owners.push_back(owner);
    }
  }
};

at::Tensor rows_on(const std::vector<std::int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

// Adds the log-probabilities of one micro-batch's tokens to their owners'.
void add_rows(
    const model::CausalLm& model,
    const at::Tensor& hidden,
    const AskedRows& asked,
    std::vector<double>& sums) {
  const at::Tensor nll =
      head_nll(
          model,
          hidden.index_select(0, rows_on(asked.rows, hidden.device())),
          rows_on(asked.targets, hidden.device()))
          .nll;
  const float* values = nll.const_data_ptr<float>();
  for (std::size_t i = 0; i < asked.owners.size(); ++i) {
    sums[asked.owners[i]] -= static_cast<double>(values[i]);
  }
}

// Of all ranks: a rank has zeros where others read.
void share_sums(const ranks::Team& team, std::vector<double>& sums) {
  if (!team.divides() || sums.empty()) return;
  at::Tensor all = at::tensor(sums, at::kDouble);
  ranks::add_up(*team.group, all);
  const auto* first = all.const_data_ptr<double>();
  sums.assign(first, first + all.numel());
}

}  // namespace

void Continuations::add(
    const std::vector<std::int32_t>& ids,
    std::int64_t scored,
    std::int64_t most) {
  const auto size = static_cast<std::int64_t>(ids.size());
  FETTLE_ASSERT(scored >= 1 && scored <= most && scored < size);
  const auto first = ids.end() - std::min(size, most + 1);
  std::vector<std::int32_t> read(first, ids.end() - 1);
  const auto [found, is_new] =
      known_.try_emplace(std::move(read), sequences_.size());
  if (is_new) {
    model::Sequence sequence{found->first, {}, {}};
    sequence.labels.assign(sequence.ids.size(), -100);
    sequences_.push_back(std::move(sequence));
  }
  asked_.push_back({found->second, {ids.end() - scored, ids.end()}});
}

std::vector<double> log_likelihoods(
    model::CausalLm& model,
    const Continuations& continuations,
    const EvalOptions& options,
    Reporter& reporter) {
  const auto& sequences = continuations.sequences();
  const auto owners = by_sequence(continuations);
  const ranks::Team& team = options.sweep.team;
  SweepOptions sweep_options = options.sweep;
  sweep_options.reporter = &reporter;
  sweep_options.team = {};
  std::vector<double> sums(continuations.asked().size(), 0.0);
  for (const auto& runs : own_sweeps(sequences, team, options.chunk_tokens)) {
    if (options.stop_requested && *options.stop_requested) throw Stopped();
    std::size_t begin = runs.front().begin;
    std::vector<model::TokenBatch> batches;
    for (const SequenceRun& run : runs) {
      std::ranges::move(
          micro_batches(
              run.of(sequences),
              options.micro_batch_tokens,
              model.config().vocab_size),
          std::back_inserter(batches));
    }
    Sweep sweep(model, batches, sweep_options);
    sweep.forward({}, {});
    const auto held = model.lm_head();  // for all micro-batches
    for (std::size_t m = 0; m < batches.size(); ++m) {
      AskedRows asked;
      for (std::int64_t s = 0; s < batches[m].sequences(); ++s, ++begin) {
        for (const std::size_t owner : owners[begin]) {
          asked.add(
              owner, continuations.asked()[owner], batches[m].starts[s + 1]);
        }
      }
      add_rows(model, sweep.hidden(static_cast<std::int64_t>(m)), asked, sums);
    }
  }
  share_sums(team, sums);
  return sums;
}

}  // namespace fettle::sweep
