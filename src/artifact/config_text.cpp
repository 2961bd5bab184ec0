// SPDX-License-Identifier: Apache-2.0
#include "artifact/config_text.h"

#include <cmath>

namespace fettle::artifact {
namespace {

void spell_floats(Json& json) {
  if (json.is_structured()) {
    for (Json& item : json) spell_floats(item);
    return;
  }
  if (!json.is_number_float()) return;
  const auto value = json.get<double>();
  if (std::isfinite(value)) return;
  const char* const name = std::isnan(value) ? "NaN"
                           : value > 0       ? "Infinity"
                                             : "-Infinity";
  json = Json{{"__float__", name}};
}

}  // namespace

std::string config_text(const Json& config) {
  Json spelled = config;
  spell_floats(spelled);
  return spelled.dump(2) + "\n";
}

}  // namespace fettle::artifact
