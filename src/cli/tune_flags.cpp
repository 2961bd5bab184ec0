// SPDX-License-Identifier: Apache-2.0
#include "cli/tune_flags.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/resume_flags.h"
#include "tune/options/option_table.h"

namespace fettle::cli {

namespace {

std::string flag_name(std::string name) {
  std::ranges::replace(name, '_', '-');
  return "--" + name;
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
            flag_name(text.name),
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
