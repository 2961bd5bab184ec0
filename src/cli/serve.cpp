// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <mutex>
#include <utility>

#include "cli/argument_checks.h"
#include "cli/command.h"
#include "cli/conversation.h"
#include "cli/failure.h"
#include "cli/inputs.h"
#include "cli/interrupt.h"
#include "cli/model_option.h"
#include "cli/sampling_flags.h"
#include "cli/session.h"
#include "core/error.h"
#include "core/text_file.h"
#include "decode/engine.h"
#include "model/family/end_tokens.h"
#include "serve/server.h"
#include "text/python_strings.h"

namespace fettle::cli {
namespace {

constexpr const char* kEndNotice =
    "\nfettle: ending when the running answers are whole; once more ends at "
    "once\n";

class Serve : public Command {
 public:
  void add_options(CLI::App& app) override {
    add_model_option(app, model_)->required();
    const auto add = [&](const char* name, auto& value, const char* help) {
      return app.add_option(name, value, help)->capture_default_str();
    };
    add("--host", http_.host, "Address to listen on; 0.0.0.0: every one");
    add("--port", http_.port, "Port to listen on; 0: any that is free")
        ->check(CLI::Range(0, 65535));
    add("--context", context_, "Tokens of a request and its answer at most")
        ->check(CLI::PositiveNumber);
    add("--parallel", parallel_, "Answers that are decoded together at most")
        ->check(CLI::Range(1, 1024));
    app.add_option(
           "--prefix-tokens",
           prefix_tokens_,
           "Tokens of prompts' beginnings that are kept, so that a prompt "
           "which "
           "begins alike isn't read anew there (as many as --context); 0: none")
        ->check(CLI::NonNegativeNumber);
    add_activations_option(app, activations_);
    add("--queue", queue_, "Answers that wait beside these at most")
        ->check(CLI::Range(0, 100000));
    add("--grace", grace_, "Seconds that running answers get to end")
        ->check(CLI::NonNegativeNumber);
    app.add_option(
        "--api-key-file",
        key_file_,
        "File with the key that clients must send; without it, all are served");
    app.add_option(
        "--alias", alias_, "The model's name to clients (that of its folder)");
  }

  void check(const Foreseen*) const override {
    check_file("--api-key-file", key_file_);
  }

  Outcome run(Session& session) override {
    const auto tokenizer = session.tokenizer(model_);
    auto reader = session.read(model_);
    const model::ModelConfig& config = reader->config();
    context_ = std::min(context_, config.max_position);
    // The one process that renders conversations; its clients have threads.
    const text::SampleOptions chat = session.sample_options(*reader);
    std::mutex rendering;
    serve::Served served{
        .tokenizer = tokenizer,
        .name = name(),
        .vocab_size = config.vocab_size,
        .context = context_,
        .ends = model::end_tokens(model_, config),
        .ask = [&](const std::string& row) {
          const std::lock_guard lock(rendering);
          return asked_ids(chat, tokenizer, row);
        }};
    http_.key = key();
    http_.connections = parallel_ + queue_ + kSpareConnections;
    if (prefix_tokens_ < 0) prefix_tokens_ = context_;
    sweep::Workload workload = decoding_workload(context_, context_, parallel_);
    workload.add(prefix_memory(config, prefix_tokens_, session.device()));
    const OpenModel opened = session.open(std::move(reader), workload);
    decode::Engine engine(
        *opened.model,
        tokenizer,
        {.parallel = parallel_,
         .activations = chosen_activations(activations_, session.device()),
         .prefix_tokens = prefix_tokens_});
    serve::Dispatcher dispatcher(engine, parallel_ + queue_);
    serve::Server server(std::move(served), dispatcher, http_);
    Interrupt interrupt(kEndNotice);
    const int port = server.start();
    std::cout << fmt::format(
        "listening on http://{}:{}/v1 as {}: {} answers at a time, {} tokens "
        "each\n",
        http_.host,
        port,
        name(),
        parallel_,
        context_);
    check_stdout();
    dispatcher.run(
        [&] { return interrupt.requested().load(); },
        std::chrono::milliseconds(grace_ * 1000));
    interrupt.forget();
    return outcome_of(dispatcher.counts());
  }

 private:
  // Clients that look at /health and the like while all answers are in work.
  static constexpr std::int64_t kSpareConnections = 8;

  std::string name() const {
    if (!alias_.empty()) return alias_;
    return std::filesystem::canonical(model_).filename().string();
  }

  std::string key() const {
    if (key_file_.empty()) return "";
    const std::string key = text::stripped(read_text_file(key_file_, "serve"));
    if (key.empty()) throw UserError("serve", key_file_, "holds no key");
    return key;
  }

  static Outcome outcome_of(const serve::ServedCounts& counts) {
    Outcome outcome;
    outcome.json = {
        {"requests", counts.requests},
        {"refused", counts.refused},
        {"abandoned", counts.abandoned},
        {"prompt_tokens", counts.prompt_tokens},
        {"known_prompt_tokens", counts.known_tokens},
        {"tokens", counts.new_tokens}};
    outcome.text = fmt::format(
        "{} requests, {} prompt tokens, {} new tokens\n",
        counts.requests,
        counts.prompt_tokens,
        counts.new_tokens);
    return outcome;
  }

  std::string model_, key_file_, alias_, activations_ = "full";
  serve::ServerOptions http_;
  std::int64_t context_ = 8192;
  std::int64_t parallel_ = 8;
  std::int64_t queue_ = 64;
  std::int64_t prefix_tokens_ = -1;  // not given
  std::int64_t grace_ = 30;
};

}  // namespace

std::unique_ptr<Command> make_serve() { return std::make_unique<Serve>(); }

}  // namespace fettle::cli
