// SPDX-License-Identifier: Apache-2.0
#include "cli/fit/peak.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "core/text_file.h"
#include "io/file.h"

namespace fettle::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kNewTokens = 8;

// Words that come to nearly so many tokens, and never to more.
std::string prompt_of(const text::Tokenizer& tokenizer, std::int64_t tokens) {
  const auto text_of = [](std::int64_t times) {
    std::string text;
    for (std::int64_t i = 0; i < times; ++i) {
      text +=
          "Compute 17 + 25 and 3 * 9, then sort 8 3 5 1 and tell the story. ";
    }
    return text;
  };
  const auto count = [&](std::int64_t times) {
    return static_cast<std::int64_t>(tokenizer.encode(text_of(times)).size());
  };
  constexpr std::int64_t kSample = 16;
  const double each = static_cast<double>(count(kSample)) / kSample;
  std::int64_t times = std::max<std::int64_t>(
      static_cast<std::int64_t>(static_cast<double>(tokens) / each), 1);
  while (times > 1 && count(times) > tokens) --times;
  return text_of(times);
}

// The exit status of this program, run with `arguments`, and what it printed in
// `log`.
int run_self(std::vector<std::string> arguments, const fs::path& log) {
  arguments.insert(arguments.begin(), "fettle");
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_addopen(
      &actions, 2, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  pid_t child = 0;
  const int failed = ::posix_spawn(
      &child, "/proc/self/exe", &actions, nullptr, pointers.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  int status = -1;
  if (failed == 0) ::waitpid(child, &status, 0);
  return failed == 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

Json measured_peak(Session& session, const PeakRun& run) {
  const fs::path prompt = run.work / "peak-prompt.txt";
  const fs::path report = run.work / "peak.json";
  const fs::path log = run.work / "peak.log";
  const auto tokenizer = session.tokenizer(run.model);
  io::write_file(prompt, prompt_of(tokenizer, run.context - kNewTokens));
  fs::remove(report);
  const CommonOptions& common = session.options();
  const int status = run_self(
      {"generate",
       run.model.string(),
       "--prompt-file",
       prompt.string(),
       fmt::format("--max-new-tokens={}", kNewTokens),
       fmt::format("--{}={}B", run.on_card ? "vram" : "ram", run.bytes),
       "--device=" + common.device,
       fmt::format("--threads={}", common.threads),
       "--quiet",
       "--json",
       report.string()},
      log);
  Json result{{"promised_bytes", run.bytes}};
  if (status != 0 || !fs::exists(report)) {
    result["failed"] =
        fs::exists(log) ? read_text_file(log, "fit") : std::string("no run");
    return result;
  }
  const Json made = read_json(report, "fit");
  result["measured_bytes"] =
      made.at(run.on_card ? "peak_vram_bytes" : "peak_ram_bytes");
  return result;
}

}  // namespace fettle::cli
