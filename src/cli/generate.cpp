// SPDX-License-Identifier: Apache-2.0
#include "sweep/generate.h"
#include "cli/model_option.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <utility>

#include "cli/command.h"
#include "cli/failure.h"
#include "cli/session.h"
#include "cli/unread.h"
#include "model/family/end_tokens.h"

namespace fettle::cli {
namespace {

// Decodes what has been made so far and prints what is new and whole.
class Printer {
 public:
  Printer(const text::Tokenizer& tokenizer, bool silent)
      : tokenizer_(tokenizer), silent_(silent) {}

  void add(std::int32_t id) {
    ids_.push_back(id);
    text_ = tokenizer_.decode(ids_);
    if (silent_) return;
    // An unfinished character decodes to U+FFFD until its last byte is there;
    // all else that is decoded is whole.
    std::string_view ready(text_);
    while (ready.ends_with("\xEF\xBF\xBD")) ready.remove_suffix(3);
    if (ready.size() > printed_) {
      std::cout << ready.substr(printed_);
      check_stdout();
      printed_ = ready.size();
    }
  }
  void finish() {
    if (!silent_ && text_.size() > printed_) {
      std::cout << text_.substr(printed_);
    }
    if (!silent_) std::cout << "\n" << std::flush;
  }
  const std::string& text() const { return text_; }

 private:
  const text::Tokenizer& tokenizer_;
  bool silent_;
  std::vector<std::int32_t> ids_;
  std::string text_;
  std::size_t printed_ = 0;
};

class Generate : public Command {
 public:
  void add_options(CLI::App& app) override {
    parser_ = &app;
    add_model_option(app, model_)->required();
    app.add_option("--prompt", prompt_, "Text to continue")->required();
    app.add_option(
           "--max-new-tokens", options_.max_new_tokens, "Tokens to add at most")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option(
           "--temperature",
           options_.temperature,
           "0: always the likeliest token")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option(
           "--top-p", options_.top_p, "Sample from this much probability")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
  }

  void check(const Foreseen*) const override {
    refuse_unread(
        *parser_,
        {{"--top-p", options_.temperature > 0, "--temperature above 0"}});
  }

  Outcome run(Session& session) override {
    const auto tokenizer = session.tokenizer(model_);
    const auto ids = tokenizer.encode(prompt_);
    sweep::Workload workload;
    workload.longest_sequence = static_cast<std::int64_t>(ids.size());
    workload.tokens = workload.longest_sequence;
    workload.keep_packed = true;
    workload.logit_rows = 1;
    auto reader = session.read(model_);
    // No more than that is ever made.
    const std::int64_t most = reader->config().max_position;
    workload.cached_tokens = std::min(
        std::min(workload.tokens, most) +
            std::min(options_.max_new_tokens, most),
        most);
    OpenModel opened = session.open(std::move(reader), workload);
    options_.seed = session.seed();
    options_.ends = model::end_tokens(model_, opened.model->config());
    Printer printer(tokenizer, session.options().json == "-");
    const auto result =
        sweep::generate(*opened.model, ids, options_, [&](std::int32_t id) {
          printer.add(id);
        });
    printer.finish();
    Outcome outcome;
    outcome.json = {
        {"text", printer.text()},
        {"tokens", result.ids.size()},
        {"ids", result.ids},
        {"tokens_per_second", result.tokens_per_second}};
    outcome.text = fmt::format(
        "{} tokens, {:.1f} tokens/s\n",
        result.ids.size(),
        result.tokens_per_second);
    return outcome;
  }

 private:
  const CLI::App* parser_ = nullptr;
  std::string model_, prompt_;
  sweep::GenerateOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_generate() {
  return std::make_unique<Generate>();
}

}  // namespace fettle::cli
