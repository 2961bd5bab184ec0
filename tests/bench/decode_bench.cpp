// SPDX-License-Identifier: Apache-2.0
// Times the decoding of sequences together, greedily, without a server or a
// tokenizer: prints JSON with tokens a second, and a sum over the last logits,
// by which two builds can be compared.
//   fettle_bench_decode MODEL [SEQUENCES] [TOKENS] [PROMPT] [THREADS] [int8]
#include <ATen/Parallel.h>
#include <malloc.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>

#include "decode/sequence_pass.h"
#include "kernels/crowd_guard.h"

namespace {

using namespace fettle;
using Clock = std::chrono::steady_clock;

struct Asked {
  std::int64_t sequences = 1;
  std::int64_t tokens = 96;
  std::int64_t prompt = 8;
  bool rounds_activations = false;
};

std::vector<std::int32_t> some_ids(
    std::int64_t count, std::int64_t vocab, std::int64_t from) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<std::int32_t>((from + 7919 * i) % (vocab - 3)));
  }
  return ids;
}

void run(model::CausalLm& model, const Asked& asked) {
  const decode::PassedModel what{
      model,
      asked.rounds_activations ? model::Activations::kInt8
                               : model::Activations::kFull};
  const std::int64_t vocab = model.config().vocab_size;
  std::vector<decode::SequenceState> states;
  std::vector<std::int32_t> next;
  for (std::int64_t s = 0; s < asked.sequences; ++s) {
    states.emplace_back(model.config(), asked.prompt + asked.tokens);
    const auto ids = some_ids(asked.prompt, vocab, 31 * s + 5);
    const decode::SequencePart part{&states.back(), ids};
    next.push_back(static_cast<std::int32_t>(
        decode::pass(what, {&part, 1}).argmax().item<std::int64_t>()));
  }
  at::Tensor logits;
  const auto begin = Clock::now();
  for (std::int64_t t = 1; t < asked.tokens; ++t) {
    std::vector<decode::SequencePart> parts;
    for (std::size_t s = 0; s < states.size(); ++s) {
      parts.push_back({&states[s], std::span(next).subspan(s, 1)});
    }
    logits = decode::pass(what, parts);
    const at::Tensor best = logits.argmax(1);
    for (std::size_t s = 0; s < states.size(); ++s) {
      next[s] = static_cast<std::int32_t>(
          best[static_cast<std::int64_t>(s)].item<std::int64_t>());
    }
  }
  const double seconds =
      std::chrono::duration<double>(Clock::now() - begin).count();
  std::cout << "{\"tokens_per_second\": "
            << static_cast<double>(asked.sequences * (asked.tokens - 1)) /
                   seconds
            << ", \"logits\": " << logits.abs().sum(at::kDouble).item<double>()
            << ", \"last\": " << next.front() << "}\n";
}

}  // namespace

int main(int argc, char** argv) {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  const auto number = [&](int i, std::int64_t otherwise) {
    return argc > i ? std::atoll(argv[i]) : otherwise;
  };
  Asked asked;
  asked.sequences = number(2, asked.sequences);
  asked.tokens = number(3, asked.tokens);
  asked.prompt = number(4, asked.prompt);
  const int threads = static_cast<int>(number(5, 2));
  asked.rounds_activations = argc > 6 && std::string(argv[6]) == "int8";
  at::set_num_threads(threads);
  const kernels::CrowdGuard guard(threads);
  model::ModelOptions options;
  options.compute_type = at::kFloat;
  options.keep_packed = true;
  options.read_ahead = false;
  options.resident_bytes = std::int64_t{1} << 40;
  model::CausalLm model(argv[1], options);
  run(model, {asked.sequences, 3, asked.prompt, asked.rounds_activations});
  for (int round = 0; round < 3; ++round) run(model, asked);
}
