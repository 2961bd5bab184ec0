// SPDX-License-Identifier: Apache-2.0
#include "cli/command.h"
#include "cli/eval_choices.h"
#include "cli/eval_generate.h"
#include "cli/eval_text.h"
#include "cli/inputs.h"
#include "cli/model_option.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/task_flags.h"
#include "cli/unread.h"
#include "core/error.h"
#include "sweep/data.h"
#include "sweep/evaluate.h"

namespace fettle::cli {
namespace {

class Eval : public Command {
 public:
  void add_options(CLI::App& app) override {
    parser_ = &app;
    add_model_option(app, model_)->required();
    app.add_option("--data", data_, kDataHelp);
    add_task_flags(app, tasks_);
    add_data_flags(app, flags_);
    app.add_option("--seq-len", seq_len_, kWindowHelp)
        ->check(CLI::PositiveNumber);
    app.add_option(
        "--against", against_, "Model folder of a teacher: adds KL and top-1");
    app.add_option(
           "--tokens-per-sweep",
           eval_.chunk_tokens,
           "Tokens for which the weights are read once")
        ->capture_default_str();
  }

  void check(const Foreseen*) const override {
    if (data_.empty() && !tasks_.any()) {
      throw UsageError("cli", "eval", "needs --data, --choices or --generate");
    }
    refuse_unread(
        *parser_, {{"--columns --form --against", !data_.empty(), "--data"}});
    check_task_flags(*parser_, tasks_);
    check_data("--data", data_);
    check_folder("--against", against_);
  }

  bool divides() const override { return true; }

  Outcome run(Session& session) override {
    Outcome outcome;
    if (!data_.empty()) outcome = run_data(session);
    const auto add = [&](const char* name, const Outcome& more) {
      outcome.json[name] = more.json;
      outcome.text = more.text + outcome.text;
    };
    if (!tasks_.choices.empty()) {
      add("choices", run_choices(session, {model_, tasks_, seq_len_, eval_}));
    }
    if (!tasks_.questions.empty()) {
      add("generate", run_questions(session, {model_, tasks_}));
    }
    return outcome;
  }

 private:
  Outcome run_data(Session& session) {
    auto reader = session.read(model_);
    const std::int64_t seq_len = window_tokens(reader->config(), seq_len_);
    const auto tokenizer = session.tokenizer(model_);
    const auto data = sweep::load_sets(
        data_files(data_),
        {tokenizer, session.sample_options(*reader, flags_), seq_len});
    const auto& sets = data.sets;
    session.tell_data(data.counts, {.seq_len = seq_len});
    for (const auto& set : sets) {
      session.require_same("the data", sweep::checksum(set.sequences));
    }
    sweep::Workload workload;
    workload.takes_experts_apart = true;
    for (const auto& set : sets) {
      workload.add(set.sequences, eval_.chunk_tokens);
    }
    OpenModel teacher;
    if (!against_.empty()) {
      sweep::Workload beside = workload;
      beside.add(session.least_plan(*reader, workload));
      teacher = session.open(against_, beside);
      workload.add(teacher.plan);
    }
    OpenModel student = session.open(std::move(reader), workload);
    eval_.micro_batch_tokens = student.plan.micro_batch_tokens;
    eval_.sweep = student.plan.sweep_options(nullptr);
    const auto result = sweep::evaluate(
        *student.model, teacher.model.get(), sets, eval_, session.reporter());
    Outcome outcome;
    outcome.json = eval_json(result);
    outcome.text = eval_table(result);
    if (against_.empty()) {
      outcome.text += closing_text(
          {.next = {
               "Give --against MODEL for the distance to the model that this "
               "one was made from."}});
    }
    return outcome;
  }

  const CLI::App* parser_ = nullptr;
  std::string model_, against_;
  std::vector<std::string> data_;
  DataFlags flags_;
  TaskFlags tasks_;
  std::int64_t seq_len_ = 0;
  sweep::EvalOptions eval_;
};

}  // namespace

std::unique_ptr<Command> make_eval() { return std::make_unique<Eval>(); }

}  // namespace fettle::cli
