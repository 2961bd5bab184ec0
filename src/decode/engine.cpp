// SPDX-License-Identifier: Apache-2.0
#include "decode/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace fettle::decode {
namespace {

// Sequences that pass together on the CPU: what packed matrices take as few
// rows.
constexpr std::int64_t kMostOnCpu = 8;

std::span<const float> values_of(const at::Tensor& logits) {
  return {
      logits.const_data_ptr<float>(), static_cast<std::size_t>(logits.numel())};
}

}  // namespace

const char* finish_name(Finish finish) {
  switch (finish) {
    case Finish::kEnd:
      return "end";
    case Finish::kStop:
      return "stop";
    case Finish::kLength:
      return "length";
    case Finish::kCancelled:
      break;
  }
  return "cancelled";
}

void check_request(const model::ModelConfig& config, const Request& request) {
  if (request.prompt.empty()) {
    throw UserError("generate", "--prompt", "holds no token to begin from");
  }
  const std::int64_t total =
      std::ssize(request.prompt) + request.max_new_tokens;
  if (total <= config.max_position) return;
  throw UserError(
      "generate",
      "--max-new-tokens",
      fmt::format(
          "{} prompt tokens and {} new ones pass the model's "
          "max_position_embeddings of {}; ask for fewer",
          request.prompt.size(),
          request.max_new_tokens,
          config.max_position));
}

Engine::Engine(
    model::CausalLm& model,
    const text::Tokenizer& tokenizer,
    const EngineOptions& options)
    : model_(model),
      tokenizer_(tokenizer),
      options_(options),
      prefixes_(kPromptChunk, options.prefix_tokens) {
  FETTLE_ASSERT(options.parallel > 0);
}

void Engine::submit(Request request, Listener listener) {
  check_request(model_.config(), request);
  waiting_.push_back({std::move(request), std::move(listener)});
}

void Engine::admit() {
  while (!waiting_.empty() && std::ssize(active_) < options_.parallel) {
    auto& [request, listener] = waiting_.front();
    const std::int64_t tokens =
        std::ssize(request.prompt) + request.max_new_tokens;
    Sampler sampler(request.sampling, request.prompt);
    TextStream stream(tokenizer_, request.stops);
    active_.push_back(
        {std::move(request),
         std::move(listener),
         SequenceState(model_.config(), tokens),
         std::move(sampler),
         std::move(stream)});
    waiting_.pop_front();
    const Request& begun = active_.back().request;
    if (begun.max_new_tokens == 0 && !begun.prompt_chances) {
      finish(active_.back(), Finish::kLength);
    }
  }
}

// A waiting one is dropped when its turn comes.
void Engine::drop_abandoned() {
  for (Sequence& sequence : active_) {
    const auto& is_gone = sequence.listener.is_gone;
    if (!sequence.finished && is_gone && is_gone()) {
      finish(sequence, Finish::kCancelled);
    }
  }
}

bool Engine::step() {
  admit();
  drop_abandoned();
  const auto begins = std::ranges::find_if(
      active_, [](const Sequence& s) { return !s.finished && !s.decodes(); });
  if (begins != active_.end()) pass_prompt(*begins);
  std::vector<Sequence*> decoding;
  for (Sequence& sequence : active_) {
    if (sequence.decodes()) decoding.push_back(&sequence);
  }
  const std::int64_t most =
      model_.options().device.is_cpu() ? kMostOnCpu : options_.parallel;
  for (std::int64_t i = 0; i < std::ssize(decoding); i += most) {
    const auto end = std::min(i + most, std::ssize(decoding));
    decode({decoding.begin() + i, decoding.begin() + end});
  }
  active_.remove_if([](const Sequence& s) { return s.finished; });
  return !active_.empty() || !waiting_.empty();
}

void Engine::run(const std::function<bool()>& stop) {
  while (step()) {
    if (stop && stop()) return cancel();
  }
}

void Engine::cancel() {
  for (Sequence& sequence : active_) {
    if (!sequence.finished) finish(sequence, Finish::kCancelled);
  }
  active_.clear();
  for (const Waiting& one : std::exchange(waiting_, {})) {
    if (one.listener.on_finish) {
      one.listener.on_finish({.finish = Finish::kCancelled});
    }
  }
}

void Engine::pass_prompt(Sequence& sequence) {
  const std::span<const std::int32_t> all(sequence.request.prompt);
  if (!sequence.request.prompt_chances) {
    const std::int64_t known = prefixes_.extend(sequence.state, all);
    sequence.passed += known;
    sequence.made.known_tokens += known;
  }
  const auto part = all.subspan(
      static_cast<std::size_t>(sequence.passed),
      static_cast<std::size_t>(
          std::min(kPromptChunk, std::ssize(all) - sequence.passed)));
  const SequencePart alone{&sequence.state, part};
  const bool is_last = sequence.passed + std::ssize(part) == std::ssize(all);
  at::Tensor logits;
  if (sequence.request.prompt_chances) {
    logits = take_prompt_chances(sequence, alone);
  } else if (is_last) {
    logits = pass(passed(), {&alone, 1});
  } else {
    pass_silently(passed(), {&alone, 1});
  }
  sequence.passed += std::ssize(part);
  prefixes_.keep(
      sequence.state, all.first(static_cast<std::size_t>(sequence.passed)));
  if (!is_last) return;
  sequence.watch = {};
  if (sequence.request.max_new_tokens == 0) {
    finish(sequence, Finish::kLength);
  } else {
    take_token(sequence, logits);
  }
}

at::Tensor Engine::take_prompt_chances(
    Sequence& sequence, const SequencePart& part) {
  const auto& prompt = sequence.request.prompt;
  auto next = static_cast<std::size_t>(sequence.passed);
  at::Tensor last;
  pass_each(passed(), part, [&](const at::Tensor& logits) {
    last = logits;
    if (++next == prompt.size()) return;
    sequence.made.prompt_chances.push_back(chances_of(
        values_of(logits), prompt[next], *sequence.request.log_probs));
  });
  return last;
}

void Engine::decode(const std::vector<Sequence*>& together) {
  std::vector<SequencePart> parts;
  for (Sequence* sequence : together) {
    parts.push_back({&sequence->state, std::span(sequence->made.ids).last(1)});
  }
  const at::Tensor logits = pass(passed(), parts);
  for (std::size_t s = 0; s < together.size(); ++s) {
    take_token(*together[s], logits[static_cast<std::int64_t>(s)]);
  }
}

void Engine::take_token(Sequence& sequence, const at::Tensor& logits) {
  const std::span<const float> values = values_of(logits);
  const std::int32_t id = sequence.sampler.next(values);
  Completion& made = sequence.made;
  made.ids.push_back(id);
  if (sequence.request.log_probs) {
    made.chances.push_back(chances_of(values, id, *sequence.request.log_probs));
  }
  hand_out(sequence, sequence.stream.add(id), false);
  if (sequence.stream.stopped()) {
    finish(sequence, Finish::kStop);
  } else if (std::ranges::count(sequence.request.ends, id) > 0) {
    finish(sequence, Finish::kEnd);
  } else if (std::ssize(made.ids) == sequence.request.max_new_tokens) {
    finish(sequence, Finish::kLength);
  }
}

void Engine::hand_out(Sequence& sequence, const std::string& text, bool last) {
  const std::span<const Chances> all(sequence.made.chances);
  if (text.empty() && !(last && sequence.told < all.size())) return;
  sequence.made.text += text;
  if (sequence.listener.on_text) {
    sequence.listener.on_text({text, all.subspan(sequence.told)});
  }
  sequence.told = all.size();
}

void Engine::finish(Sequence& sequence, Finish how) {
  hand_out(sequence, sequence.stream.finish(), true);
  sequence.finished = true;
  // What was held back may have ended in a stop string.
  sequence.made.finish = sequence.stream.stopped() && how != Finish::kCancelled
                             ? Finish::kStop
                             : how;
  sequence.made.seconds = sequence.watch.seconds();
  if (sequence.listener.on_finish) {
    sequence.listener.on_finish(std::move(sequence.made));
  }
}

}  // namespace fettle::decode
