// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <optional>
#include <utility>

#include "cli/command.h"
#include "cli/conversation.h"
#include "cli/failure.h"
#include "cli/interrupt.h"
#include "cli/model_option.h"
#include "cli/sampling_flags.h"
#include "cli/session.h"
#include "decode/engine.h"
#include "model/family/end_tokens.h"
#include "text/python_strings.h"
#include "text/utf8.h"

namespace fettle::cli {
namespace {

constexpr const char* kChatHelp =
    "/reset       begin anew\n"
    "/save FILE   write the conversation as a row of data\n"
    "/help        this text\n"
    "/exit        end, as the end of the input does\n"
    "Ctrl-C ends an answer, and between answers the program.\n";

// What a person types, line by line.
class Input {
 public:
  Input() : typed_(::isatty(STDIN_FILENO) == 1) {}

  std::optional<std::string> next() const {
    if (typed_) std::cerr << "> " << std::flush;
    std::string line;
    if (!std::getline(std::cin, line)) return std::nullopt;
    return text::stripped(text::repair_utf8(line));
  }

 private:
  bool typed_;
};

class Chat : public Command {
 public:
  void add_options(CLI::App& app) override {
    parser_ = &app;
    add_model_option(app, model_)->required();
    app.add_option("--system", system_, "Message of the system");
    app.add_option(
           "--context",
           context_,
           "Tokens of the conversation at most, its answers among them")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    flags_.max_new_tokens = 512;
    add_sampling_flags(app, flags_);
  }

  void check(const Foreseen*) const override {
    check_sampling_flags(*parser_, flags_);
  }

  Outcome run(Session& session) override {
    const auto tokenizer = session.tokenizer(model_);
    auto reader = session.read(model_);
    context_ = std::min(context_, reader->config().max_position);
    ends_ = model::end_tokens(model_, reader->config());
    Conversation conversation(session.sample_options(*reader));
    if (!system_.empty()) conversation.add("system", system_);
    sweep::Workload workload = decoding_workload(context_, context_, 1);
    workload.add(prefix_memory(reader->config(), context_, session.device()));
    const OpenModel opened = session.open(std::move(reader), workload);
    flags_.sampling.seed = session.seed();
    // One for all answers: it knows what was read.
    decode::Engine engine(
        *opened.model,
        tokenizer,
        {.activations =
             chosen_activations(flags_.activations, session.device()),
         .prefix_tokens = context_});
    silent_ = session.options().json == "-";
    const Input input;
    while (const auto line = input.next()) {
      if (line->empty()) continue;
      if (*line == "/exit") break;
      if (line->starts_with('/')) {
        obey(*line, conversation);
      } else {
        answer(engine, tokenizer, conversation, *line);
      }
    }
    Outcome outcome;
    outcome.json = {
        {"messages", conversation.messages()},
        {"tokens", made_tokens_},
        {"known_prompt_tokens", known_tokens_}};
    return outcome;
  }

 private:
  static void obey(const std::string& line, Conversation& conversation) {
    const std::size_t space = line.find(' ');
    const std::string order = line.substr(0, space);
    const std::string rest =
        space == line.npos ? "" : text::stripped(line.substr(space));
    if (order == "/reset") {
      conversation.clear();
    } else if (order == "/save" && !rest.empty()) {
      save(rest, conversation);
    } else {
      std::cerr << kChatHelp << std::flush;
    }
  }

  static void save(const std::string& path, const Conversation& conversation) {
    std::ofstream file(path, std::ios::trunc);
    file << Json{{"messages", conversation.messages()}}.dump() << "\n";
    file.close();
    std::cerr << (file ? "saved to " : "cannot be written: ") << path << "\n";
  }

  // The next answer is asked for with all that was said.
  void answer(
      decode::Engine& engine,
      const text::Tokenizer& tokenizer,
      Conversation& conversation,
      const std::string& question) {
    conversation.add("user", question);
    decode::Request request{
        .prompt = conversation.prompt(tokenizer),
        .sampling = flags_.sampling,
        .ends = ends_,
        .stops = flags_.stops};
    const std::int64_t room = context_ - std::ssize(request.prompt);
    if (room <= 0) {
      conversation.take_back();
      std::cerr << fmt::format(
          "the conversation would have {} tokens, and --context is {}; /reset "
          "begins anew\n",
          request.prompt.size(),
          context_);
      return;
    }
    request.max_new_tokens = std::min(flags_.max_new_tokens, room);
    decode::Listener listener;
    if (!silent_) {
      listener.on_text = [](const decode::NewText& made) {
        std::cout << made.text;
        check_stdout();
      };
    }
    listener.on_finish = [&](const decode::Completion& made) {
      conversation.add("assistant", made.text);
      made_tokens_ += std::ssize(made.ids);
      known_tokens_ += made.known_tokens;
    };
    engine.submit(std::move(request), std::move(listener));
    Interrupt interrupt(nullptr);
    engine.run([&] { return interrupt.requested().load(); });
    interrupt.forget();
    if (silent_) return;
    std::cout << "\n";
    check_stdout();
  }

  const CLI::App* parser_ = nullptr;
  std::string model_, system_;
  std::int64_t context_ = 4096;
  SamplingFlags flags_;
  std::vector<std::int64_t> ends_;
  std::int64_t made_tokens_ = 0;
  std::int64_t known_tokens_ = 0;  // of prompts, that were not read anew
  bool silent_ = false;
};

}  // namespace

std::unique_ptr<Command> make_chat() { return std::make_unique<Chat>(); }

}  // namespace fettle::cli
