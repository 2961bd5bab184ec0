// SPDX-License-Identifier: Apache-2.0
// The tune stage: trains parts of a model by layer-major sweeps and leaves an
// adapter. The output folder appears whole at the end; until then
// OUT.partial/ holds metrics.jsonl and the state to resume from, and a resumed
// run ends in the same bits as one that was never stopped.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "artifact/making.h"
#include "core//json.h"
#include "core/progress.h"
#include "model/causal_lm.h"
#include "sweep/evaluate.h"
#include "sweep/sweep.h"
#include "text/mixture.h"
#include "tune/options/tune_options.h"
#include "tune/teacher.h"

namespace fettle::tune {

struct TuneInput {
  // Its patch is taken over; its resident layers and the weights outside them
  // hold tuned values afterwards, so that it is of no further use.
  model::CausalLm& model;
  // Made with the options' seq_len and seed.
  text::Mixture& train;
  std::vector<sweep::EvalSet> held_out;
  std::filesystem::path out;
  std::int64_t micro_batch_tokens = 0;
  sweep::SweepOptions sweep;
  // Opens the teacher (empty: none). Called before any layer of the tuned model
  // is loaded.
  std::function<Teacher()> open_teacher = {};
  std::string teacher_fingerprint = {};
  // Set from elsewhere to end after the step in progress with the state saved;
  // null: never.
  const std::atomic<bool>* stop_requested = nullptr;
  artifact::Making making = {};  // shown in the report
};

struct TuneResult {
  std::int64_t steps = 0;  // done in all
  bool stopped = false;    // before the last step: OUT.partial/ can be resumed
  bool stopped_early = false;  // patience ran out: the run is whole
  // After which the adapter is; 0: the last, without a choice of the best.
  std::int64_t best_step = 0;
  std::int64_t trainable_weights = 0;
  Json peak_rates = Json::object();  // by method
  bool own_rates = false;            // no option named one
  // Seen, and the seconds of their steps: of the whole run, where it was
  // stopped and resumed too.
  std::int64_t tokens = 0;
  double seconds = 0.0;
  double loss = 0.0;  // of the last step that had one
  // In the whole run: steps without a finite loss or gradient, in which nothing
  // was learned, and packed sequences left out since all labels were masked.
  std::int64_t skipped_steps = 0;
  std::int64_t masked_sequences = 0;
  std::vector<sweep::EvalScore> held_out_before;
  // With the finished adapter; empty when stopped.
  std::vector<sweep::EvalScore> held_out_after;

  Json to_json() const;
  // What equal runs have in common, and the times of this run.
  Json found() const;
  Json timings() const;
};

// "0.001, the method's own", with names where there are several.
std::string rates_text(const TuneResult& result);

// {"name": {"nll": ..., "tokens": ...}, ...}
Json to_json(const std::vector<sweep::EvalScore>& scores);

// The result that the whole folder of a run with these options on this model
// holds, or none where there is no such folder. Throws UserError naming the
// first option that differs.
std::optional<TuneResult> finished_run(
    const std::filesystem::path& out,
    const model::ModelReader& reader,
    const TuneOptions& options);

// Writes OUT/adapter.safetensors, OUT/adapter.json, OUT/timings.json,
// OUT/metrics.jsonl and OUT/report.html.
// Throws UserError on an impossible option, a model that nothing can be tuned
// in, data without anything to train on, a resume with another model, data or
// option (learning rates, their schedule and the number of steps may change),
// or, with step and layer, too many steps in a row without a finite loss. The
// state on disk is then one whose weights give a finite loss.
TuneResult tune(
    const TuneInput& input, const TuneOptions& options, Reporter& reporter);

}  // namespace fettle::tune
