// SPDX-License-Identifier: Apache-2.0
// Commands about the program itself: its help, and completion in shells.
#include <fmt/format.h>

#include "cli/command.h"
#include "cli/completion.h"
#include "cli/spelling.h"
#include "core/error.h"

namespace fettle::cli {
namespace {

class Help : public Command {
 public:
  void add_options(CLI::App& app) override {
    program_ = app.get_parent();
    std::vector<std::string> names;
    for (const auto& entry : commands()) names.emplace_back(entry.name);
    app.add_option("COMMAND", name_, "The command to tell of")
        ->check(CLI::IsMember(names));
  }

  void check(const Foreseen*) const override {}

  Outcome run(Session&) override {
    FETTLE_ASSERT(program_ != nullptr);
    const CLI::App* shown =
        name_.empty() ? program_ : program_->get_subcommand(name_);
    return {
        .text = shown->get_formatter()->make_help(
            shown, "", CLI::AppFormatMode::Normal)};
  }

 private:
  CLI::App* program_ = nullptr;
  std::string name_;
};

class Completion : public Command {
 public:
  void add_options(CLI::App& app) override {
    program_ = app.get_parent();
    app.add_option("SHELL", shell_, "The shell that is to complete")
        ->required()
        ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  }

  void check(const Foreseen*) const override {}

  Outcome run(Session&) override {
    FETTLE_ASSERT(program_ != nullptr);
    const auto script = shell_ == "bash"  ? bash_completion
                        : shell_ == "zsh" ? zsh_completion
                                          : fish_completion;
    return {.text = script(*program_)};
  }

 private:
  const CLI::App* program_ = nullptr;
  std::string shell_;
};

}  // namespace

std::unique_ptr<Command> make_help() { return std::make_unique<Help>(); }

std::unique_ptr<Command> make_completion() {
  return std::make_unique<Completion>();
}

}  // namespace fettle::cli
