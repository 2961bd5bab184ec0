// SPDX-License-Identifier: Apache-2.0
#include "artifact/report_parts.h"

namespace fettle::artifact {

std::string script_text(const Json& json) {
  std::string text = json.dump();
  for (std::size_t at = 0; (at = text.find("</", at)) != std::string::npos;) {
    text.replace(at, 2, "<\\/");
  }
  return text;
}

}  // namespace fettle::artifact
