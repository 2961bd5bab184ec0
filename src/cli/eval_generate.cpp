// SPDX-License-Identifier: Apache-2.0
#include "cli/eval_generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <sstream>
#include <utility>

#include "cli/conversation.h"
#include "cli/session.h"
#include "cli/table.h"
#include "core/error.h"
#include "core/progress.h"
#include "core/stopwatch.h"
#include "decode/engine.h"
#include "decode/questions.h"
#include "model/family/end_tokens.h"
#include "ranks/group.h"

namespace fettle::cli {
namespace {

using decode::Question;
using decode::QuestionSet;

// A question on its way to its answer.
struct Asked {
  std::size_t set, row;
  std::string reference;  // the right answer
  std::vector<std::int32_t> prompt;
  std::vector<std::string> stops;
  decode::Completion made = {};
  std::optional<std::string> answer = {};

  bool right() const { return answer == reference; }
};

std::vector<QuestionSet> question_sets(const TaskFlags& flags) {
  std::vector<QuestionSet> sets;
  for (const auto& file : data_files(flags.questions)) {
    sets.push_back(decode::read_questions(file.path));
    limit_rows(flags, sets.back().questions);
  }
  return sets;
}

std::string shots_before(const TaskFlags& flags) {
  if (flags.shots == 0) return "";
  auto shots = decode::read_questions(flags.shots_from).questions;
  take_shots(flags, shots);
  return decode::shots_text(shots);
}

// What the model reads. A prompt that leaves no room loses its begin.
class Prompts {
 public:
  // A conversation for each where `chat` is given.
  Prompts(
      const text::Tokenizer& tokenizer,
      std::optional<text::SampleOptions> chat,
      std::int64_t most)
      : tokenizer_(tokenizer), chat_(std::move(chat)), most_(most) {}

  std::vector<std::int32_t> of(const std::string& text) const {
    std::vector<std::int32_t> ids = all_of(text);
    const std::int64_t over = std::ssize(ids) - most_;
    if (over > 0) ids.erase(ids.begin(), ids.begin() + over);
    return ids;
  }

 private:
  std::vector<std::int32_t> all_of(const std::string& text) const {
    if (!chat_) return tokenizer_.encode(text);
    Conversation conversation(*chat_);
    conversation.add("user", text);
    return conversation.prompt(tokenizer_);
  }

  const text::Tokenizer& tokenizer_;
  std::optional<text::SampleOptions> chat_;
  std::int64_t most_;
};

std::int64_t room_of(const TaskFlags& flags, std::int64_t positions) {
  const std::int64_t most = positions - flags.max_new_tokens;
  if (most > 0) return most;
  throw UserError(
      "questions",
      "--max-new-tokens",
      fmt::format(
          "leaves no room for a question in the model's {} positions; ask for "
          "fewer",
          positions));
}

std::vector<Asked> ask_all(
    const std::vector<QuestionSet>& sets,
    const TaskFlags& flags,
    const Prompts& prompts) {
  const decode::AnswerFinder finder({flags.pattern, flags.match == "last"});
  const std::string before = shots_before(flags);
  std::vector<Asked> all;
  for (std::size_t s = 0; s < sets.size(); ++s) {
    for (std::size_t r = 0; r < sets[s].questions.size(); ++r) {
      const Question& question = sets[s].questions[r];
      const auto reference = finder.find(question.solution);
      if (!reference) {
        throw UserError(
            "questions",
            fmt::format("{}, row {}", sets[s].name, r + 1),
            "--pattern finds no answer in its own solution");
      }
      all.push_back(
          {s,
           r,
           *reference,
           prompts.of(before + question.prompt),
           flags.stops.empty() ? question.stops : flags.stops});
    }
  }
  return all;
}

// Has them answered, as many at a time as asked for.
void answer(
    std::span<Asked> all,
    const TaskFlags& flags,
    const std::vector<std::int64_t>& ends,
    decode::Engine& engine,
    Reporter& reporter) {
  const decode::AnswerFinder finder({flags.pattern, flags.match == "last"});
  Progress progress(&reporter, "generate", all.size(), "questions");
  for (Asked& asked : all) {
    decode::Request request;
    request.prompt = asked.prompt;
    request.max_new_tokens = flags.max_new_tokens;
    request.ends = ends;
    request.stops = asked.stops;
    engine.submit(
        std::move(request), {.on_finish = [&](decode::Completion made) {
          asked.made = std::move(made);
          asked.answer = finder.find(asked.made.text);
          progress.advance(1);
        }});
  }
  engine.run();
}

// The questions of this rank's shards, which have about as many tokens to read.
std::span<Asked> own_questions(
    std::vector<Asked>& all, const ranks::Team& team) {
  std::vector<std::int64_t> tokens;
  for (const Asked& asked : all) tokens.push_back(std::ssize(asked.prompt));
  const auto starts = ranks::even_runs(tokens, team.shards);
  const ranks::Shards own = team.own();
  const std::size_t first = starts[own.first];
  return std::span(all).subspan(first, starts[own.first + own.count] - first);
}

// Has rank 0 know the answers of all ranks, which stand in their order.
void collect(
    std::vector<Asked>& all, std::span<const Asked> own, ranks::Group& group) {
  std::string text;
  for (const Asked& asked : own) {
    text +=
        Json{
            {"ids", asked.made.ids},
            {"text", asked.made.text},
            {"finish", static_cast<int>(asked.made.finish)},
            {"answer", asked.answer ? Json(*asked.answer) : Json()}}
            .dump(
                -1,
                ' ',
                /*ensure_ascii=*/true,
                Json::error_handler_t::replace) +
        "\n";
  }
  at::Tensor bytes = at::empty({std::ssize(text)}, at::kByte);
  std::ranges::copy(
      text, reinterpret_cast<char*>(bytes.mutable_data_ptr<std::uint8_t>()));
  const at::Tensor together = ranks::rows_at_rank_0(group, bytes);
  if (group.rank() != 0) return;
  std::istringstream lines(std::string(
      reinterpret_cast<const char*>(together.const_data_ptr<std::uint8_t>()),
      static_cast<std::size_t>(together.numel())));
  for (Asked& asked : all) {
    std::string line;
    std::getline(lines, line);
    const Json json = Json::parse(line);
    asked.made.ids = json["ids"].get<std::vector<std::int32_t>>();
    asked.made.text = json["text"].get<std::string>();
    asked.made.finish = static_cast<decode::Finish>(json["finish"].get<int>());
    if (!json["answer"].is_null()) {
      asked.answer = json["answer"].get<std::string>();
    }
  }
}

// What came of some questions.
struct Tally {
  std::int64_t questions = 0, right = 0, unmatched = 0;

  void add(const Asked& asked) {
    ++questions;
    right += asked.right() ? 1 : 0;
    unmatched += asked.answer ? 0 : 1;
  }
  Json json() const {
    Json json{{"questions", questions}, {"unmatched", unmatched}};
    add_share(json, "exact_match", sweep::share_of(right, questions));
    return json;
  }
  std::vector<std::string> cells(const std::string& name) const {
    return {
        name,
        fmt::format("{}", questions),
        share_text(sweep::share_of(right, questions)),
        fmt::format("{}", unmatched)};
  }
};

void write_answers(
    const std::string& path,
    const std::vector<QuestionSet>& sets,
    const std::vector<Asked>& all) {
  RowFile file(path);
  for (const Asked& asked : all) {
    file.add(
        {{"file", sets[asked.set].name},
         {"row", asked.row},
         {"reference", asked.reference},
         {"answer", asked.answer ? Json(*asked.answer) : Json()},
         {"right", asked.right()},
         {"output", asked.made.text},
         {"ids", asked.made.ids},
         {"finish", decode::finish_name(asked.made.finish)}});
  }
  file.close();
}

Outcome outcome_of_questions(
    const std::vector<QuestionSet>& sets,
    const std::vector<Asked>& all,
    double seconds) {
  std::vector<Tally> tallies(sets.size());
  Tally together;
  std::int64_t tokens = 0;
  for (const Asked& asked : all) {
    tallies[asked.set].add(asked);
    together.add(asked);
    tokens += std::ssize(asked.made.ids);
  }
  Table table({"file", "questions", "exact match", "without an answer"});
  Json files = Json::array();
  for (std::size_t s = 0; s < sets.size(); ++s) {
    table.add(tallies[s].cells(sets[s].name));
    files.push_back(tallies[s].json());
    files.back()["file"] = sets[s].name;
  }
  if (sets.size() > 1) table.add(together.cells("all"));
  const double rate = static_cast<double>(tokens) / seconds;
  return {
      .json =
          {{"files", files},
           {"all", together.json()},
           {"tokens", tokens},
           {"tokens_per_second", rate}},
      .text = table.text() + fmt::format("{:.1f} tokens/s\n", rate)};
}

}  // namespace

Outcome run_questions(Session& session, const GenerateRun& run) {
  auto reader = session.read(run.model);
  const auto tokenizer = session.tokenizer(run.model);
  const std::vector<QuestionSet> sets = question_sets(run.flags);
  std::optional<text::SampleOptions> chat;
  if (run.flags.chat) chat = session.sample_options(*reader);
  std::vector<Asked> all = ask_all(
      sets,
      run.flags,
      {tokenizer, chat, room_of(run.flags, reader->config().max_position)});
  const auto ends = model::end_tokens(run.model, reader->config());
  std::int64_t longest = 0;
  for (const Asked& asked : all) {
    longest = std::max<std::int64_t>(longest, std::ssize(asked.prompt));
  }
  OpenModel opened = session.open(
      std::move(reader),
      decoding_workload(
          longest, longest + run.flags.max_new_tokens, run.flags.parallel));
  decode::Engine engine(
      *opened.model, tokenizer, {.parallel = run.flags.parallel});
  const Stopwatch watch;
  const ranks::Team& team = session.team();
  const std::span<Asked> own = own_questions(all, team);
  answer(own, run.flags, ends, engine, session.reporter());
  if (team.ranks() > 1) collect(all, own, *team.group);
  if (!session.leads()) return {};
  write_answers(run.flags.rows, sets, all);
  return outcome_of_questions(sets, all, watch.seconds());
}

}  // namespace fettle::cli
