// SPDX-License-Identifier: Apache-2.0
#include "core/progress.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <thread>

#include "core/error.h"

using Catch::Contains;
using fettle::ConsoleOptions;
using fettle::ConsoleReporter;
using fettle::Progress;
using fettle::progress_line;

namespace {

// A console whose clock the test sets and whose text it reads.
struct Console {
  std::string text;
  double now = 100;

  ConsoleOptions options(bool terminal) {
    return {
        terminal,
        [this](std::string_view piece) { text += piece; },
        [this] { return now; }};
  }
  auto count(char c) const { return std::ranges::count(text, c); }
};

}  // namespace

TEST_CASE("a line has share, counts, rate and time left") {
  CHECK(
      progress_line({"analyze", 3300, "tokens"}, 1234, 2) ==
      "analyze 37% (1,234 of 3,300 tokens), 617 tokens/s, 00:03 left");
  CHECK(
      progress_line({"eval", 10, "windows"}, 10, 3671) ==
      "eval 100% (10 of 10 windows), 0.00 windows/s, 1:01:11");
  CHECK(
      progress_line({"read", 4096, "bytes"}, 1024, 2) ==
      "read 25% (1.00 KiB of 4.00 KiB), 512 B/s, 00:06 left");
  CHECK(
      progress_line({"scan", 0, "files"}, 7, 2) ==
      "scan 7 files, 3.50 files/s, 00:02");
  CHECK(
      progress_line({"tune", 5, "steps"}, 0, 0) ==
      "tune 0% (0 of 5 steps), 0 steps/s, 00:00");
  CHECK(
      progress_line(
          {"tune", 320, "tokens"}, 160, 2, "step 5 of 10, loss 2.1000") ==
      "tune 50% (step 5 of 10, loss 2.1000), 80 tokens/s, 00:02 left");
  // What an earlier run did counts for the share, not for the rate.
  CHECK(
      progress_line({"tune", 400, "tokens", 200}, 100, 2) ==
      "tune 75% (300 of 400 tokens), 50 tokens/s, 00:02 left");
  // Not 100 % before all is done.
  CHECK_THAT(
      progress_line({"eval", 1000, "tokens"}, 999, 1), Contains(" 99% "));
}

TEST_CASE("a terminal's line is rewritten at most five times a second") {
  Console console;
  ConsoleReporter reporter(console.options(true));
  {
    Progress progress(&reporter, "eval", 1000, "tokens");
    for (int i = 0; i < 1000; ++i) {
      console.now += 0.01;
      progress.advance();
    }
    CHECK(console.count('\r') >= 45);
    CHECK(console.count('\r') <= 50);
    CHECK(console.count('\n') == 0);
  }
  CHECK(console.count('\n') == 1);
  CHECK_THAT(console.text, Contains("eval 100% (1,000 of 1,000 tokens)"));
}

TEST_CASE("a log gets a line every ten seconds and a last one") {
  Console console;
  ConsoleReporter reporter(console.options(false));
  {
    Progress progress(&reporter, "tune", 60, "steps");
    for (int i = 0; i < 60; ++i) {
      console.now += 1;
      progress.advance();
    }
    CHECK(console.count('\n') == 6);
  }
  CHECK(console.count('\n') == 7);
  CHECK(console.count('\r') == 0);
}

TEST_CASE("a long task's log grows more slowly than the task") {
  Console console;
  ConsoleReporter reporter(console.options(false));
  Progress progress(&reporter, "tune", 100000, "steps");
  for (int i = 0; i < 20000; ++i) {
    console.now += 1;
    progress.advance();
  }
  // One in ten seconds for a thousand, then as many as double it over and over.
  CHECK(console.count('\n') > 250);
  CHECK(console.count('\n') < 420);
}

TEST_CASE("a terminal's line is cut to its width") {
  Console console;
  ConsoleOptions options = console.options(true);
  std::size_t columns = 20;
  options.columns = [&] { return columns; };
  ConsoleReporter reporter(options);
  Progress progress(&reporter, "eval", 1000, "tokens");
  console.now += 1;
  progress.advance();
  CHECK(console.text == "\r\x1b[Keval 0% (1 of 1,000");
  columns = 0;
  console.now += 1;
  progress.advance();
  CHECK_THAT(console.text, Catch::EndsWith(" left"));
}

TEST_CASE("a task's line shows what was told of it last") {
  Console console;
  ConsoleReporter reporter(console.options(true));
  Progress progress(&reporter, "tune", 10, "tokens");
  progress.tell("step 1 of 5");
  progress.tell("step 2 of 5");
  console.now += 1;
  progress.advance(4);
  CHECK_THAT(console.text, Contains("tune 40% (step 2 of 5), 4 tokens/s"));
}

TEST_CASE("a task too quick to be shown leaves nothing") {
  Console console;
  ConsoleReporter reporter(console.options(true));
  { Progress(&reporter, "open", 3, "shards").advance(3); }
  CHECK(console.text.empty());
}

TEST_CASE("of nested tasks the innermost is shown, then the outer again") {
  Console console;
  ConsoleReporter reporter(console.options(true));
  Progress outer(&reporter, "sweep", 2, "layers");
  {
    Progress inner(&reporter, "layer", 10, "experts");
    console.now += 1;
    outer.advance();
    CHECK(console.text.empty());
    inner.advance();
    CHECK_THAT(console.text, Contains("layer 10%"));
  }
  console.now += 1;
  outer.advance();
  CHECK_THAT(console.text, Contains("sweep 100%"));
}

TEST_CASE("a note gets a line of its own amid progress") {
  Console console;
  ConsoleReporter reporter(console.options(true));
  reporter.note("plan: 3 stages");
  CHECK(console.text == "plan: 3 stages\n");
  Progress progress(&reporter, "eval", 10, "tokens");
  console.now += 1;
  progress.advance();
  reporter.note("found");
  CHECK_THAT(console.text, Catch::EndsWith("\r\x1b[Kfound\n"));
}

TEST_CASE("threads count one task together") {
  Console console;
  ConsoleReporter reporter(console.options(false));
  {
    Progress progress(&reporter, "read", 4000, "tensors");
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 1000; ++i) progress.advance();
      });
    }
    for (std::thread& thread : threads) thread.join();
    console.now += 2;
  }
  CHECK_THAT(console.text, Contains("(4,000 of 4,000 tensors)"));
}

TEST_CASE("a silent reporter takes everything and says nothing") {
  fettle::SilentReporter reporter;
  Progress progress(&reporter, "eval", 10, "tokens");
  CHECK_NOTHROW(progress.advance(10));
  CHECK_NOTHROW(progress.tell("text"));
  CHECK_NOTHROW(reporter.note("text"));
}

TEST_CASE("a stream's console knows that a file is no terminal") {
  std::FILE* file = std::tmpfile();
  REQUIRE(file != nullptr);
  const ConsoleOptions options = fettle::console_options(file);
  CHECK_FALSE(options.terminal);
  const double before = options.seconds();
  CHECK(options.seconds() >= before);
  options.write("text");
  CHECK(std::ftell(file) == 4);
  std::fclose(file);
}

TEST_CASE("advancing a task that ended is our bug") {
  Console console;
  ConsoleReporter reporter(console.options(true));
  const std::size_t id = reporter.begin({"a", 1, "b"});
  reporter.end(id);
  CHECK_THROWS_AS(reporter.advance(id, 1), fettle::InternalError);
}
