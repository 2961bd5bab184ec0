// SPDX-License-Identifier: Apache-2.0
#include "tune/best_evaluation.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <span>

#include "core/error.h"
#include "io/checksum.h"
#include "io/durable.h"
#include "tune/part/state_tensors.h"

namespace fettle::tune {

namespace {

namespace fs = std::filesystem;

constexpr const char* kSteps = "evaluation.steps";
constexpr const char* kScores = "evaluation.scores";

template <typename T>
void add(io::Hasher& hasher, const std::vector<T>& values) {
  hasher.update(std::as_bytes(std::span(values)));
}

}  // namespace

double mean_nll(const std::vector<sweep::EvalScore>& scores) {
  double sum = 0.0;
  for (const sweep::EvalScore& score : scores) sum += score.nll;
  return sum / static_cast<double>(scores.size());
}

Json held_out_identity(const std::vector<sweep::EvalSet>& sets) {
  Json identity = Json::array();
  for (const sweep::EvalSet& set : sets) {
    io::Hasher hasher;
    std::size_t tokens = 0;
    for (const model::Sequence& sequence : set.sequences) {
      add(hasher, sequence.ids);
      add(hasher, sequence.labels);
      add(hasher, sequence.document_starts);
      tokens += sequence.ids.size();
    }
    identity.push_back(
        {{"name", set.name},
         {"tokens", tokens},
         {"checksum", hasher.digest()}});
  }
  return identity;
}

BestEvaluation::BestEvaluation(fs::path folder, const BestOptions& options)
    : folder_(std::move(folder)), options_(options) {}

fs::path BestEvaluation::path(std::int64_t step) const {
  return folder_ / fmt::format("{}{:08}", kBestPrefix, step);
}

void BestEvaluation::take(
    std::int64_t step,
    const std::vector<sweep::EvalScore>& scores,
    const Write& write) {
  const double best =
      step_ > 0 ? mean_nll(scores_) : std::numeric_limits<double>::infinity();
  // A loss that is not a number is no better than any.
  if (!(mean_nll(scores) < best)) {
    ++waited_;
    return;
  }
  if (options_.keep) {
    // In the place of one that a killed run left and no state names.
    io::make_folder(path(step), write);
    remove_but(step, saved_step_);
  }
  step_ = step;
  waited_ = 0;
  scores_ = scores;
}

bool BestEvaluation::exhausted() const {
  return options_.patience > 0 && waited_ >= options_.patience;
}

void BestEvaluation::save_state(artifact::TensorMap& into) const {
  into[kSteps] = at::tensor(std::vector<std::int64_t>{step_, waited_});
  const auto sets = static_cast<std::int64_t>(scores_.size());
  at::Tensor table = at::empty({sets, 2}, at::kDouble);  // nll, tokens
  double* value = table.mutable_data_ptr<double>();
  for (const sweep::EvalScore& score : scores_) {
    *value++ = score.nll;
    *value++ = static_cast<double>(score.tokens);
  }
  into[kScores] = table;
}

void BestEvaluation::state_saved() {
  saved_step_ = step_;
  if (options_.keep) remove_but(step_, step_);
}

void BestEvaluation::load_state(
    const artifact::TensorMap& from, const std::vector<sweep::EvalSet>& sets) {
  const at::Tensor steps = take_tensor(from, kSteps, {at::kLong, {2}});
  step_ = steps.const_data_ptr<std::int64_t>()[0];
  waited_ = steps.const_data_ptr<std::int64_t>()[1];
  const auto count =
      step_ > 0 ? static_cast<std::int64_t>(sets.size()) : std::int64_t{0};
  const at::Tensor table =
      take_tensor(from, kScores, {at::kDouble, {count, 2}});
  const double* value = table.const_data_ptr<double>();
  scores_.clear();
  for (std::int64_t i = 0; i < count; ++i) {
    sweep::EvalScore score;
    score.name = sets[i].name;
    score.nll = *value++;
    score.tokens = static_cast<std::int64_t>(*value++);
    score.perplexity = std::exp(score.nll);
    scores_.push_back(std::move(score));
  }
  saved_step_ = step_;
  if (!options_.keep) return;
  remove_but(step_, step_);
  if (step_ == 0 || fs::exists(path(step_))) return;
  throw UserError(
      "tune",
      path(step_).string(),
      "expected the best adapter so far, found none; begin anew with "
      "--restart");
}

void BestEvaluation::remove_but(std::int64_t one, std::int64_t other) const {
  std::vector<fs::path> old;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const fs::path& found = entry.path();
    if (!found.filename().string().starts_with(kBestPrefix)) continue;
    if (found != path(one) && found != path(other)) old.push_back(found);
  }
  for (const fs::path& each : old) io::remove_tree(each);
}

bool BestEvaluation::take_over() const {
  if (!options_.keep || step_ == 0) return false;
  for (const auto& entry : fs::directory_iterator(path(step_))) {
    const fs::path to = folder_ / entry.path().filename();
    io::link_or_copy(entry.path(), to);
  }
  return true;
}

}  // namespace fettle::tune
