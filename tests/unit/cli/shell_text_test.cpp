// SPDX-License-Identifier: Apache-2.0
#include "cli/shell_text.h"

#include <catch2/catch.hpp>
#include <sstream>

using namespace fettle::cli;

TEST_CASE("words are quoted where a shell would read them otherwise") {
  CHECK(shell_word("a/b.jsonl:2") == "a/b.jsonl:2");
  CHECK(shell_word("--keep=0.5") == "--keep=0.5");
  CHECK(shell_word("") == "''");
  CHECK(shell_word("two words") == "'two words'");
  CHECK(shell_word("it's") == "'it'\\''s'");
  CHECK(shell_word("$HOME") == "'$HOME'");
}

TEST_CASE("a command for a report is one line") {
  CHECK(
      command_line({"eval", "my model", "--data=a.jsonl:2"}) ==
      "fettle eval 'my model' --data=a.jsonl:2");
}

TEST_CASE("a long command is broken at words, within the width") {
  std::vector<std::string> words{"fettle", "analyze"};
  for (int i = 0; i < 20; ++i) words.push_back("data/file.jsonl");
  const std::string text = command_text(words, 4);
  std::istringstream lines(text);
  std::string joined;
  std::size_t indent = 4;
  for (std::string line; std::getline(lines, line); indent = 0) {
    CHECK(indent + line.size() <= kTextWidth);
    if (line.ends_with("\\")) line.pop_back();
    joined += line;
  }
  std::istringstream split(joined);
  std::vector<std::string> found;
  for (std::string word; split >> word;) found.push_back(word);
  CHECK(found == words);
  CHECK(command_text({"fettle", "inspect"}, 4) == "fettle inspect");
}

TEST_CASE("text is wrapped by columns, not bytes") {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "äöü ";
  std::istringstream lines(wrapped(text, 2, 0));
  std::string line;
  std::getline(lines, line);
  CHECK(line.size() == 25 * 7 - 1);  // 25 words of 3 columns, and 24 spaces
  std::getline(lines, line);
  CHECK(line.starts_with("  ä"));
}

TEST_CASE("a command ends with its report and what to do next") {
  CHECK(
      closing_text({.report = "s/report.html", .next = {"fettle", "x y"}}) ==
      "report: s/report.html\nnext: fettle 'x y'\n");
  CHECK(closing_text({.next = {"Load it."}}) == "next: Load it.\n");
  CHECK(closing_text({}).empty());
}
