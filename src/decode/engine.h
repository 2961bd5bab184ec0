// SPDX-License-Identifier: Apache-2.0
// Decodes many sequences together: they join and leave as they begin and end,
// prompts are passed in chunks between, but for beginnings that another prompt
// had too (prefix_cache.h). Chunks are passed alone, and the sums of decoded
// tokens don't depend on what is beside them, so that a request gets the same
// tokens alone and in a crowd (on the CPU in float32).
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/stopwatch.h"
#include "decode/prefix_cache.h"
#include "decode/sampler.h"
#include "decode/sequence_pass.h"
#include "decode/text_stream.h"
#include "model/causal_lm.h"
#include "text/tokenizer.h"

namespace fettle::decode {

// Tokens of a prompt that are passed at once. More are hardly faster, and what
// prompts have in common is found in such parts.
inline constexpr std::int64_t kPromptChunk = 256;

struct Request {
  std::vector<std::int32_t> prompt;
  // Tokens to add at most.
  std::int64_t max_new_tokens = 64;
  SamplingOptions sampling = {};
  // Tokens that end it.
  std::vector<std::int64_t> ends = {};
  // Texts that end it and are left out.
  std::vector<std::string> stops = {};
  // Likeliest tokens to tell of at each place, beside the chosen one; none: no
  // log-probabilities.
  std::optional<std::int64_t> log_probs = {};
  // Log-probabilities of the prompt's tokens too.
  bool prompt_chances = false;
};

enum class Finish { kEnd, kStop, kLength, kCancelled };

// "end", "stop", "length", "cancelled".
const char* finish_name(Finish finish);

struct Completion {
  std::vector<std::int32_t> ids = {};  // new tokens, the end token included
  std::string text = {};
  Finish finish = Finish::kLength;
  std::vector<Chances> chances = {};  // of each token, where asked for
  // Of each of the prompt's tokens but the first, where asked for.
  std::vector<Chances> prompt_chances = {};
  double seconds = 0;             // since the prompt was passed
  std::int64_t known_tokens = 0;  // of the prompt, that weren't passed anew
};

// Text that became certain, and chances of tokens since, where asked for.
struct NewText {
  const std::string& text;
  std::span<const Chances> chances;
};

// Called with text as it becomes certain, and once with the whole. Asked
// between tokens whether somebody still listens.
struct Listener {
  std::function<void(const NewText& made)> on_text = {};
  std::function<void(Completion)> on_finish = {};
  std::function<bool()> is_gone = {};
};

struct EngineOptions {
  // Sequences that are decoded at a time; others wait.
  std::int64_t parallel = 1;
  model::Activations activations = model::Activations::kFull;
  // Tokens of prompts' beginnings that are kept for others that begin alike.
  std::int64_t prefix_tokens = 0;
};

// Throws UserError on a prompt without a token, and where prompt and new tokens
// pass the model's max_position_embeddings.
void check_request(const model::ModelConfig& config, const Request& request);

class Engine {
 public:
  // Keeps references.
  Engine(
      model::CausalLm& model,
      const text::Tokenizer& tokenizer,
      const EngineOptions& options);

  // Throws as check_request does.
  void submit(Request request, Listener listener);

  // Passes one chunk of a prompt, if any waits, and a token of every sequence
  // that decodes. False where nothing is left to do.
  bool step();
  // Steps until nothing is left, or until `stop` says so: then cancels.
  void run(const std::function<bool()>& stop = {});
  // Ends all that is there.
  void cancel();

 private:
  struct Sequence {
    Request request;
    Listener listener;
    SequenceState state;
    Sampler sampler;
    TextStream stream;
    Completion made = {};
    Stopwatch watch = {};     // since the prompt was passed
    std::int64_t passed = 0;  // tokens of the prompt
    std::size_t told = 0;     // chances that were handed out
    bool finished = false;

    bool decodes() const {
      return passed == std::ssize(request.prompt) && !finished;
    }
  };
  struct Waiting {
    Request request;
    Listener listener;
  };

  void admit();
  void drop_abandoned();
  void pass_prompt(Sequence& sequence);
  // The last token's logits.
  at::Tensor take_prompt_chances(Sequence& sequence, const SequencePart& part);
  void decode(const std::vector<Sequence*>& together);
  void take_token(Sequence& sequence, const at::Tensor& logits);
  void hand_out(Sequence& sequence, const std::string& text, bool last);
  void finish(Sequence& sequence, Finish how);

  PassedModel passed() { return {model_, options_.activations}; }

  model::CausalLm& model_;
  const text::Tokenizer& tokenizer_;
  EngineOptions options_;
  PrefixCache prefixes_;
  std::list<Waiting> waiting_;
  std::list<Sequence> active_;
};

}  // namespace fettle::decode
