// SPDX-License-Identifier: Apache-2.0
#include "cli/model_option.h"

#include <fmt/format.h>

#include <filesystem>
#include <utility>

#include "core/error.h"
#include "model/weights/model_folder.h"

namespace fettle::cli {
namespace {

namespace fs = std::filesystem;

void refuse_unfinished(const fs::path& folder) {
  const fs::path path = folder.has_filename() ? folder : folder.parent_path();
  std::error_code ignored;
  if (path.extension() != ".partial" ||
      !fs::exists(path / ".fettle-lock", ignored)) {
    return;
  }
  throw UserError(
      "model",
      path.string(),
      "is the unfinished output of a run that was stopped or still writes; run "
      "that command again, with --resume if it has that option");
}

}  // namespace

CLI::Option* add_model_option(CLI::App& app, std::string& model) {
  return app.add_option("MODEL", model, "Model folder");
}

std::string resolve_model(std::string& folder) {
  refuse_unfinished(folder);
  folder = model::resolved_model_folder(folder).string();
  return {};
}

model::WeightValues checked_values(
    const model::ModelReader& reader, Reporter& reporter, std::string label) {
  Progress progress(
      &reporter,
      std::move(label),
      static_cast<std::uint64_t>(reader.config().parameters()),
      "parameters");
  auto values = model::scan_values(reader, [&](std::int64_t numel) {
    progress.advance(static_cast<std::uint64_t>(numel));
  });
  model::check_values(values, reader);
  return values;
}

std::string left_out_text(const model::ModelReader& reader) {
  const auto& names = reader.left_out();
  if (names.empty()) return "";
  return fmt::format(
      "left out, since no forward pass of this family reads it: {}{}",
      names.front(),
      names.size() == 1
          ? ""
          : fmt::format(" and {} more tensors", names.size() - 1));
}

}  // namespace fettle::cli
