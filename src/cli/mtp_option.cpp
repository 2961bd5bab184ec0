// SPDX-License-Identifier: Apache-2.0
#include "cli/mtp_option.h"

namespace fettle::cli {

void add_mtp_option(CLI::App& app, std::string& value) {
  value = "auto";
  app.add_option(
         "--mtp",
         value,
         "Heads that predict further tokens (model.layers.N of DeepSeek and "
         "GLM, mtp.* of Qwen): keep copies them, and where expert count or "
         "width change cuts their experts by the norms of their weights; drop "
         "leaves them out and says so in config.json; auto keeps what can be "
         "kept")
      ->check(CLI::IsMember({"auto", "keep", "drop"}))
      ->capture_default_str();
}

}  // namespace fettle::cli
