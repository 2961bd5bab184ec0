// SPDX-License-Identifier: Apache-2.0
// The C++ side of chat rendering, with shell scripts in the helper's place; the
// helper itself is tested in tests/hf/test_chat.py.
#include "text/chat_renderer.h"

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>

#include "tests/unit/text/tokenizer_files.h"
#include "text/dataset.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::text;
using Ids = std::vector<std::int32_t>;

namespace {

const std::string kRow = R"({"messages":[{"role":"assistant","content":"a"}]})";

// A helper that says it is ready and then answers each line alike.
std::string script_that_answers(const std::string& answer) {
  return "echo '{\"ready\":true}'\n"
         "while read -r line; do echo '" +
         answer + "'; done\n";
}

// The error of starting `script` and rendering one conversation.
std::string error_of(const std::string& script) {
  const TemporaryFolder folder;
  const ChatRenderer renderer{"/bin/sh", folder.write("s.sh", script)};
  try {
    ChatSession session(renderer, "model; exit 9");
    session.render(kRow, "d.jsonl:7");
  } catch (const UserError& error) {
    return error.what();
  }
  return "rendered";
}

}  // namespace

TEST_CASE("a conversation comes back in segments") {
  const TemporaryFolder folder;
  const ChatRenderer renderer{
      "/bin/sh",
      folder.write(
          "s.sh",
          script_that_answers(R"({"segments":[["a",false],["b\\n",true]]})"))};
  ChatSession session(renderer, folder.path());
  for (int i = 0; i < 3; ++i) {
    const auto segments = session.render(kRow, "d");
    REQUIRE(segments.size() == 2);
    CHECK(segments[0].text == "a");
    CHECK_FALSE(segments[0].counts);
    CHECK(segments[1].counts);
  }
}

TEST_CASE("what asks for an answer comes as one text") {
  const TemporaryFolder folder;
  const ChatRenderer renderer{
      "/bin/sh",
      folder.write(
          "s.sh",
          "echo '{\"ready\":true}'; read -r line; "
          "echo \"{\\\"text\\\":\\\"${#line}\\\"}\"; read -r line; "
          "echo '{\"error\":\"no\"}'")};
  ChatSession session(renderer, folder.path());
  const std::string request = "{\"ask\": " + kRow + "}";
  CHECK(session.ask(kRow, "d") == std::to_string(request.size()));
  CHECK_THROWS_WITH(session.ask(kRow, "d"), Contains("no"));
}

TEST_CASE("the model folder reaches the helper as one plain argument") {
  const TemporaryFolder folder;
  const ChatRenderer renderer{
      "/bin/sh",
      folder.write(
          "s.sh",
          "test \"$#\" = 1 && test \"$1\" = 'a b;$(c)' && "
          "echo '{\"ready\":true}'")};
  CHECK_NOTHROW(ChatSession(renderer, "a b;$(c)"));
}

TEST_CASE("a large conversation passes whole") {
  const TemporaryFolder folder;
  const ChatRenderer renderer{
      "/bin/sh",
      folder.write(
          "s.sh",
          "echo '{\"ready\":true}'; read -r line; "
          "echo \"{\\\"segments\\\":[[\\\"${#line}\\\",true]]}\"")};
  ChatSession session(renderer, folder.path());
  // Its bytes reach the helper as they are, but on one line.
  const std::string big = R"({"messages": [{"role": "user",
                              "content": ")" +
                          std::string(2000000, 'x') + "\"}]}";
  CHECK(session.render(big, "d").at(0).text == std::to_string(big.size()));
}

TEST_CASE("a helper that is missing or fails is named") {
  const TemporaryFolder folder;
  const auto script = folder.write("s.sh", "exit 0");
  CHECK_THROWS_WITH(
      ChatSession({"/bin/sh", folder.path() / "none.py"}, "m"),
      Contains("none.py") && Contains("is missing"));
  CHECK_THROWS_WITH(
      ChatSession({"/nonexistent/python", script}, "m"),
      Contains("/nonexistent/python: cannot be started"));
  CHECK_THAT(
      error_of("exit 0"), Contains("model") && Contains("without a reply"));
  CHECK_THAT(
      error_of("echo '{\"error\":\"no jinja2\"}'"), Contains("no jinja2"));
  CHECK_THAT(error_of("echo nonsense"), Contains("not valid JSON"));
  CHECK_THAT(
      error_of("echo '{\"ready\":true}'"),
      Contains("d.jsonl:7") && Contains("without a reply"));
  CHECK_THAT(
      error_of(script_that_answers(R"({"error":"bad role"})")),
      Contains("d.jsonl:7: bad role"));
  CHECK_THAT(
      error_of(script_that_answers(R"({"segments":[["a"]]})")),
      Contains("d.jsonl:7") && Contains("'segments'"));
  CHECK_THAT(
      error_of(script_that_answers(R"({"segments":3})")),
      Contains("'segments'"));
}

TEST_CASE("a helper that never answers is given up and ended") {
  const TemporaryFolder folder;
  const auto pid = folder.path() / "pid";
  ChatRenderer renderer{
      "/bin/sh",
      folder.write(
          "s.sh",
          "echo $$ > '" + pid.string() +
              "'; echo '{\"ready\":true}'; exec sleep 1000")};
  renderer.patience = std::chrono::seconds(1);
  {
    ChatSession session(renderer, "m");
    CHECK_THROWS_WITH(
        session.render(kRow, "d.jsonl:7"),
        Contains("d.jsonl:7") && Contains("gave no reply in 1 s"));
  }
  pid_t helper = 0;
  std::ifstream(pid) >> helper;
  REQUIRE(helper > 0);
  CHECK(kill(helper, 0) != 0);
}

TEST_CASE("files read with the same options share a helper") {
  const TemporaryFolder folder;
  const auto script = folder.write(
      "s.sh",
      "echo started >> '" + (folder.path() / "starts").string() + "'\n" +
          script_that_answers(R"({"segments":[["a",true]]})"));
  const Tokenizer tokenizer = make_tokenizer(letters_file());
  SampleOptions options;
  options.vocab_limit = 12;
  options.renderer = {"/bin/sh", script};
  for (const char* name : {"a.jsonl", "b.jsonl"}) {
    read_samples(folder.write(name, kRow), tokenizer, options);
  }
  std::ifstream starts(folder.path() / "starts");
  const std::string all{std::istreambuf_iterator<char>(starts), {}};
  CHECK(all == "started\n");
}

TEST_CASE("a file of conversations without any answer is named") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = make_tokenizer(letters_file());
  SampleOptions options;
  options.vocab_limit = 12;
  options.renderer = {
      "/bin/sh",
      folder.write(
          "s.sh", script_that_answers(R"({"segments":[["a",false]]})"))};
  const std::string question =
      R"({"messages":[{"role":"user","content":"a"}]})";
  const auto read = [&](const std::string& rows) {
    return read_samples(folder.write("d.jsonl", rows), tokenizer, options);
  };
  CHECK_THROWS_WITH(
      read("\n" + question + "\n" + question),
      Contains("d.jsonl:2: has no assistant message") &&
          Contains("nothing to train on"));
  CHECK(read(question + "\n" + kRow).size() == 2);
  CHECK(
      read(
          question + "\n"
                     R"({"text": "a"})")
          .size() == 2);
}

TEST_CASE("FETTLE_PYTHON names the Python of a renderer without one") {
  const TemporaryFolder folder;
  const auto script = folder.write("s.sh", "echo '{\"ready\":true}'");
  REQUIRE(setenv("FETTLE_PYTHON", "/nonexistent/named", 1) == 0);
  CHECK_THROWS_WITH(
      ChatSession({"", script}, "m"), Contains("/nonexistent/named"));
  REQUIRE(setenv("FETTLE_PYTHON", "/bin/sh", 1) == 0);
  CHECK_NOTHROW(ChatSession({"", script}, "m"));
  REQUIRE(unsetenv("FETTLE_PYTHON") == 0);
}

TEST_CASE("what the assistant said counts, token by token") {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = make_tokenizer(letters_file());
  SampleOptions options;
  options.vocab_limit = 12;
  options.model_folder = folder.path();
  const auto labels = [&](const std::string& segments) {
    options.renderer = {
        "/bin/sh",
        folder.write(
            "s.sh", script_that_answers("{\"segments\":" + segments + "}"))};
    options.chat = std::make_shared<ChatHelper>();
    const auto data = folder.write("d.jsonl", kRow);
    return read_samples(data, tokenizer, options).at(0).labels;
  };
  constexpr std::int32_t kNo = kMasked;
  CHECK(
      labels(R"([["<s>ab<s>",false],["de<s>",true],["c",false]])") ==
      Ids{kNo, kNo, kNo, 8, 10, kNo});
  CHECK(
      labels(R"([["d",false],["a",true],["d",false],["b",true]])") ==
      Ids{kNo, 0, kNo, 1});
  // "abc" is one token over the border: it is not the assistant's alone.
  CHECK(
      labels(R"([["e",false],["ab",true],["ce",false]])") ==
      Ids{kNo, kNo, kNo});
  CHECK(labels(R"([["abc",false]])") == Ids{kNo});
}
