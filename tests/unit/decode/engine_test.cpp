// SPDX-License-Identifier: Apache-2.0
#include "decode/engine.h"

#include <catch2/catch.hpp>

#include "../artifact/tiny_model.h"
#include "../text/letters.h"
#include "core/error.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::decode;
using fettle::testing::TinyModel;
using fettle::testing::TinyModelOptions;

namespace {

// Prompts of unequal lengths, one of more than a chunk, by sampling.
std::vector<Request> crowd(std::int64_t vocabulary) {
  std::vector<Request> requests;
  for (const std::int64_t length : {1, 3, 600, 9, 2, 17}) {
    Request request;
    for (std::int64_t i = 0; i < length; ++i) {
      request.prompt.push_back(
          static_cast<std::int32_t>((7 * i + length) % vocabulary));
    }
    request.max_new_tokens = 8 + length % 5;
    request.sampling = {.temperature = 1.0, .seed = requests.size()};
    request.log_probs = 2;
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<Completion> completed(
    model::CausalLm& model,
    const std::vector<Request>& requests,
    std::int64_t parallel) {
  const text::Tokenizer tokenizer = testing::letters();
  Engine engine(model, tokenizer, {.parallel = parallel});
  std::vector<Completion> all(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    engine.submit(requests[i], {.on_finish = [&, i](Completion made) {
                    all[i] = std::move(made);
                  }});
  }
  engine.run();
  return all;
}

std::vector<double> log_probs_of(const Completion& made) {
  std::vector<double> all;
  for (const Chances& one : made.chances) {
    all.push_back(one.chosen.log_prob);
    for (const TokenChance& other : one.likeliest)
      all.push_back(other.log_prob);
  }
  return all;
}

}  // namespace

TEST_CASE("a request gets the same bits alone and in a crowd") {
  const char* family = GENERATE(
      "qwen3_moe", "deepseek_v2", "deepseek_v3", "lfm2_moe", "gpt_oss");
  CAPTURE(family);
  const TinyModel tiny(
      {.family = family, .changes = {{"max_position_embeddings", 700}}});
  model::CausalLm model(tiny.path(), {.resident_bytes = 1 << 24});
  const auto requests = crowd(model.config().vocab_size);
  const auto alone = completed(model, requests, 1);
  for (const std::int64_t parallel : {3, 6}) {
    const auto together = completed(model, requests, parallel);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      CAPTURE(parallel, i);
      CHECK(std::ssize(alone[i].ids) == requests[i].max_new_tokens);
      CHECK(alone[i].ids == together[i].ids);
      CHECK(alone[i].text == together[i].text);
      CHECK(log_probs_of(alone[i]) == log_probs_of(together[i]));
    }
  }
}

TEST_CASE("a completion ends by what comes first") {
  const TinyModel tiny;
  model::CausalLm model(tiny.path(), {.resident_bytes = 1 << 24});
  Request request{.prompt = {1, 2}, .max_new_tokens = 6};
  const Completion whole = completed(model, {request}, 1)[0];
  CHECK(whole.finish == Finish::kLength);
  CHECK(whole.ids.size() == 6);
  const std::string name = finish_name(whole.finish);
  CHECK(name == "length");
  request.ends = {whole.ids[2]};
  const Completion ended = completed(model, {request}, 1)[0];
  CHECK(ended.finish == Finish::kEnd);
  CHECK(ended.ids.back() == whole.ids[2]);
  request.ends = {};
  request.max_new_tokens = 0;
  CHECK(completed(model, {request}, 1)[0].ids.empty());
}

TEST_CASE("a run that is told to stop hands out what there is") {
  const TinyModel tiny;
  model::CausalLm model(tiny.path(), {.resident_bytes = 1 << 24});
  const text::Tokenizer tokenizer = testing::letters();
  Engine engine(model, tokenizer, {});
  Completion made;
  Completion other;
  engine.submit(
      {.prompt = {1}, .max_new_tokens = 10},
      {.on_finish = [&](Completion its) { made = std::move(its); }});
  engine.submit(
      {.prompt = {1}, .max_new_tokens = 5},
      {.on_finish = [&](Completion its) { other = std::move(its); }});
  int steps = 0;
  engine.run([&] { return ++steps == 3; });
  CHECK(made.finish == Finish::kCancelled);
  CHECK(made.ids.size() == 4);  // the first step gives two
  CHECK(other.finish == Finish::kCancelled);
  CHECK(other.ids.empty());
  CHECK_FALSE(engine.step());
}

TEST_CASE("requests that can't be met are refused") {
  const TinyModel tiny;
  const model::CausalLm model(tiny.path(), {});
  CHECK_THROWS_WITH(
      check_request(model.config(), {.prompt = {}}),
      Contains("no token to begin from"));
  CHECK_THROWS_WITH(
      check_request(
          model.config(),
          {.prompt = {1}, .max_new_tokens = model.config().max_position}),
      Contains("ask for fewer"));
}

TEST_CASE("a prompt's known beginning changes no bit of its answer") {
  const char* family =
      GENERATE("qwen3_moe", "deepseek_v3", "lfm2_moe", "gpt_oss");
  CAPTURE(family);
  const TinyModel tiny(
      {.family = family, .changes = {{"max_position_embeddings", 1100}}});
  model::CausalLm model(tiny.path(), {.resident_bytes = 1 << 24});
  const text::Tokenizer tokenizer = testing::letters();
  // A conversation that grows, another one, the first once more, and one that
  // ends where a part does.
  std::vector<Request> requests;
  for (const auto& [length, other] :
       {std::pair{300, 900}, {1000, 900}, {600, 0}, {1000, 900}, {512, 900}}) {
    Request request;
    request.max_new_tokens = 3;
    request.log_probs = 2;
    for (int i = 0; i < length; ++i) {
      const int token = (7 * i + (i >= other ? 1 : 0)) % 10;
      request.prompt.push_back(token);
    }
    requests.push_back(std::move(request));
  }
  const auto answers = [&](std::int64_t tokens) {
    Engine engine(model, tokenizer, {.prefix_tokens = tokens});
    std::vector<Completion> all;
    for (const Request& request : requests) {
      engine.submit(request, {.on_finish = [&](Completion made) {
                      all.push_back(std::move(made));
                    }});
      engine.run();
    }
    return all;
  };
  const auto known = [](const std::vector<Completion>& all) {
    std::vector<std::int64_t> tokens;
    for (const auto& one : all) tokens.push_back(one.known_tokens);
    return tokens;
  };
  using Tokens = std::vector<std::int64_t>;
  const auto anew = answers(0), cached = answers(4096), little = answers(512);
  CHECK(known(anew) == Tokens{0, 0, 0, 0, 0});
  CHECK(known(cached) == Tokens{0, 256, 0, 768, 256});
  // Two parts: the other conversation's drive those of the first one out.
  CHECK(known(little) == Tokens{0, 256, 0, 0, 256});
  for (std::size_t i = 0; i < anew.size(); ++i) {
    CAPTURE(i);
    for (const auto* other : {&cached, &little}) {
      CHECK((*other)[i].ids == anew[i].ids);
      CHECK(log_probs_of((*other)[i]) == log_probs_of(anew[i]));
    }
  }
}

TEST_CASE("a prompt whose chances are asked for is read whole") {
  const TinyModel tiny({.changes = {{"max_position_embeddings", 700}}});
  model::CausalLm model(tiny.path(), {.resident_bytes = 1 << 24});
  const text::Tokenizer tokenizer = testing::letters();
  Engine engine(model, tokenizer, {.prefix_tokens = 1024});
  Request request;
  request.max_new_tokens = 1;
  request.prompt.assign(600, 5);
  std::vector<Completion> all;
  for (const bool chances : {false, true, false}) {
    request.prompt_chances = chances;
    request.log_probs = 0;
    engine.submit(request, {.on_finish = [&](Completion made) {
                    all.push_back(std::move(made));
                  }});
    engine.run();
  }
  CHECK(all[1].prompt_chances.size() == 599);
  CHECK(all[1].known_tokens == 0);
  CHECK(all[2].known_tokens == 512);
}

TEST_CASE("embeddings and head in bfloat16 give the bits of float32") {
  const bool tied = GENERATE(true, false);
  const TinyModel tiny(
      {.changes = {{"tie_word_embeddings", tied}}, .type = at::kBFloat16});
  model::CausalLm wide(tiny.path(), {.resident_bytes = 1 << 24});
  model::CausalLm half(
      tiny.path(), {.resident_bytes = 1 << 24, .keep_packed = true});
  CHECK(wide.globals().lm_head.scalar_type() == at::kFloat);
  CHECK(half.globals().lm_head.scalar_type() == at::kBFloat16);
  CHECK(half.globals().embed_tokens.scalar_type() == at::kBFloat16);
  CHECK(half.globals().lm_head.is_same(half.globals().embed_tokens) == tied);
  Request request{.prompt = {1, 2, 3}, .max_new_tokens = 5};
  request.log_probs = 3;
  const Completion a = completed(wide, {request}, 1)[0];
  const Completion b = completed(half, {request}, 1)[0];
  CHECK(a.ids == b.ids);
  CHECK(log_probs_of(a) == log_probs_of(b));
  const at::Tensor hidden = at::ones({3, half.config().hidden_size});
  CHECK(at::allclose(
      model::logits(half, hidden), model::logits(wide, hidden), 1e-5, 1e-5));
  const TinyModel plain;
  const model::CausalLm whole(
      plain.path(), {.resident_bytes = 1 << 24, .keep_packed = true});
  CHECK(whole.globals().lm_head.scalar_type() == at::kFloat);
}

TEST_CASE("what is read when it is needed gives the same bits") {
  const bool tied = GENERATE(true, false);
  const bool decodes = GENERATE(true, false);
  const TinyModel tiny(
      {.changes = {{"tie_word_embeddings", tied}}, .type = at::kBFloat16});
  model::CausalLm held(tiny.path(), {.keep_packed = decodes});
  model::CausalLm read(
      tiny.path(),
      {.keep_packed = decodes, .hold_globals = false, .experts_apart = true});
  CHECK_FALSE(read.globals().lm_head.defined());
  CHECK_FALSE(read.globals().embed_tokens.defined());
  Request request{.prompt = {1, 2, 3}, .max_new_tokens = 5};
  request.log_probs = 3;
  const Completion a = completed(held, {request}, 1)[0];
  const Completion b = completed(read, {request}, 1)[0];
  CHECK(a.ids == b.ids);
  CHECK(log_probs_of(a) == log_probs_of(b));
  // It is read once for all who hold it at one time, and then forgotten.
  std::weak_ptr<const at::Tensor> seen;
  {
    const auto head = read.lm_head();
    seen = head;
    CHECK(read.lm_head() == head);
    CHECK(at::equal(*head, *held.lm_head()));
  }
  CHECK(seen.expired());
}
