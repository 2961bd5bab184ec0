// SPDX-License-Identifier: Apache-2.0
#include "cli/tune_flags.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/resume_flags.h"
#include "tune/options/option_table.h"

namespace fettle::cli {

namespace {

// Names of an option, the first for its help.
std::string flag_names(std::string name) {
  std::ranges::replace(name, '_', '-');
  return name == "warmup" ? "--warmup,--warmup-steps" : "--" + name;
}

}  // namespace

void add_tune_flags(CLI::App& app, tune::TuneOptions& options) {
  tune::for_each_option(
      options,
      [&](const tune::OptionText& text,
          auto& value,
          const tune::Allowed& allowed) {
        const std::string readers(text.methods);
        auto* flag = app.add_option(
            flag_names(text.name),
            value,
            readers.empty() ? text.help
                            : fmt::format("{} [{}]", text.help, readers));
        flag->capture_default_str();
        if (!allowed.choices.empty())
          flag->check(CLI::IsMember(allowed.choices));
      });
  add_resume_flags(app, options.resume, options.restart);
}

}  // namespace fettle::cli
