// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <optional>
#include <utility>

#include "cli/command.h"
#include "cli/conversation.h"
#include "cli/failure.h"
#include "cli/inputs.h"
#include "cli/interrupt.h"
#include "cli/model_option.h"
#include "cli/sampling_flags.h"
#include "cli/session.h"
#include "cli/unread.h"
#include "core/error.h"
#include "core/text_file.h"
#include "decode/engine.h"
#include "model/family/end_tokens.h"

namespace fettle::cli {
namespace {

constexpr const char* kStopNotice =
    "\nfettle: stopping; once more ends at once\n";

// Prints text as it is made.
void print_part(const std::string& text) {
  std::cout << text;
  check_stdout();
}

Json chances_json(const std::vector<decode::Chances>& all) {
  Json list = Json::array();
  for (const decode::Chances& one : all) {
    Json likeliest = Json::array();
    for (const auto& [id, log_prob] : one.likeliest) {
      likeliest.push_back({{"id", id}, {"log_prob", log_prob}});
    }
    list.push_back(
        {{"id", one.chosen.id},
         {"log_prob", one.chosen.log_prob},
         {"likeliest", likeliest}});
  }
  return list;
}

class Generate : public Command {
 public:
  void add_options(CLI::App& app) override {
    parser_ = &app;
    add_model_option(app, model_)->required();
    app.add_option("--prompt", prompt_, "Text to continue");
    app.add_option(
        "--prompt-file",
        prompt_file_,
        "File with the text to continue; without it and --prompt, the standard "
        "input");
    app.add_flag(
        "--chat",
        chat_,
        "The text is a question to the assistant, by the model's chat "
        "template");
    app.add_option("--system", system_, "Message of the system before it");
    add_sampling_flags(app, flags_);
    app.add_option(
           "--logprobs",
           log_probs_,
           "Likeliest tokens to list at each place, with the chosen one, in "
           "--json")
        ->check(CLI::Range(0, 1000));
  }

  void check(const Foreseen*) const override {
    check_sampling_flags(*parser_, flags_);
    refuse_unread(*parser_, {{"--system", chat_, "--chat"}});
    const bool given = parser_->get_option("--prompt")->count() > 0;
    if (given && !prompt_file_.empty()) {
      throw UsageError("cli", "--prompt-file", "has no place beside --prompt");
    }
    check_file("--prompt-file", prompt_file_);
    if (!given && prompt_file_.empty() && ::isatty(STDIN_FILENO) == 1) {
      throw UsageError(
          "cli",
          "generate",
          "needs --prompt, --prompt-file or text on the standard input");
    }
  }

  Outcome run(Session& session) override {
    const auto tokenizer = session.tokenizer(model_);
    auto reader = session.read(model_);
    decode::Request request{
        .prompt = prompt_ids(session, *reader, tokenizer),
        .max_new_tokens = flags_.max_new_tokens,
        .sampling = flags_.sampling,
        .ends = model::end_tokens(model_, reader->config()),
        .stops = flags_.stops};
    request.sampling.seed = session.seed();
    if (parser_->get_option("--logprobs")->count() > 0) {
      request.log_probs = log_probs_;
    }
    decode::check_request(reader->config(), request);
    const std::int64_t given = std::ssize(request.prompt);
    OpenModel opened = session.open(
        std::move(reader),
        decoding_workload(given, given + flags_.max_new_tokens, 1));
    return outcome_of(
        complete(session, *opened.model, tokenizer, std::move(request)), given);
  }

 private:
  std::string prompt_text() const {
    if (!prompt_file_.empty()) return read_text_file(prompt_file_, "generate");
    if (parser_->get_option("--prompt")->count() > 0) return prompt_;
    return {
        std::istreambuf_iterator<char>(std::cin),
        std::istreambuf_iterator<char>()};
  }

  std::vector<std::int32_t> prompt_ids(
      Session& session,
      const model::ModelReader& reader,
      const text::Tokenizer& tokenizer) const {
    const std::string text = prompt_text();
    if (!chat_) return tokenizer.encode(text);
    Conversation conversation(session.sample_options(reader));
    if (!system_.empty()) conversation.add("system", system_);
    conversation.add("user", text);
    return conversation.prompt(tokenizer);
  }

  decode::Completion complete(
      Session& session,
      model::CausalLm& model,
      const text::Tokenizer& tokenizer,
      decode::Request request) const {
    const bool silent = session.options().json == "-";
    decode::Completion made;
    decode::Engine engine(
        model,
        tokenizer,
        {.activations =
             chosen_activations(flags_.activations, session.device())});
    decode::Listener listener;
    if (!silent) {
      listener.on_text = [](const decode::NewText& next) {
        print_part(next.text);
      };
    }
    listener.on_finish = [&](decode::Completion completion) {
      made = std::move(completion);
    };
    engine.submit(std::move(request), std::move(listener));
    const Interrupt interrupt(kStopNotice);
    engine.run([&] { return interrupt.requested().load(); });
    if (!silent) print_part("\n");
    return made;
  }

  Outcome outcome_of(const decode::Completion& made, std::int64_t given) const {
    const bool cancelled = made.finish == decode::Finish::kCancelled;
    if (cancelled) note_stop();
    const double rate =
        made.seconds > 0 ? static_cast<double>(made.ids.size()) / made.seconds
                         : 0.0;
    Outcome outcome;
    outcome.stopped = cancelled;
    outcome.json = {
        {"text", made.text},
        {"tokens", made.ids.size()},
        {"prompt_tokens", given},
        {"ids", made.ids},
        {"finish", decode::finish_name(made.finish)},
        {"tokens_per_second", rate}};
    if (!made.chances.empty()) {
      outcome.json["logprobs"] = chances_json(made.chances);
    }
    outcome.text =
        fmt::format("{} tokens, {:.1f} tokens/s\n", made.ids.size(), rate);
    return outcome;
  }

  const CLI::App* parser_ = nullptr;
  std::string model_, prompt_, prompt_file_, system_;
  bool chat_ = false;
  SamplingFlags flags_;
  std::int64_t log_probs_ = 0;
};

}  // namespace

std::unique_ptr<Command> make_generate() {
  return std::make_unique<Generate>();
}

}  // namespace fettle::cli
