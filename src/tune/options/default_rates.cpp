// SPDX-License-Identifier: Apache-2.0
#include "tune/options/default_rates.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "tune/options/router_options.h"

namespace fettle::tune {

namespace {

struct Rate {
  const char* method;
  double rate;
};

constexpr std::array<Rate, 7> kRates{
    {{"usaf", 5e-4},
     {"smt", 3e-4},
     {"esft", 5e-4},
     {"full", 1e-4},
     {"lora", 5e-4},
     {"router", 5e-4},
     {"router_kd", 5e-4}}};

}  // namespace

double default_rate(std::string_view method) {
  const auto found = std::ranges::find(kRates, method, &Rate::method);
  return found == kRates.end() ? 0.0 : found->rate;
}

const std::string& default_rates_text() {
  static const std::string kText = [] {
    std::string text;
    for (const Rate& rate : kRates) {
      text += fmt::format(
          "{}{} {:g}", text.empty() ? "" : ", ", rate.method, rate.rate);
    }
    return text;
  }();
  return kText;
}

double peak_rate(const TuneOptions& options, std::string_view method) {
  const bool of_router = is_router_method(method);
  const double asked = of_router ? options.router_lr : options.lr;
  if (asked > 0.0) return asked;
  const bool beside = of_router && options.method != method;
  return beside ? kRouterRateBeside : default_rate(method);
}

Json peak_rates(const TuneOptions& options) {
  Json rates = Json::object();
  for (const std::string& method : methods_of(options)) {
    const double rate = peak_rate(options, method);
    if (rate > 0.0) rates[method] = rate;
  }
  if (trains_router(options) && !rates.contains(kRouterKd)) {
    rates[kRouter] = peak_rate(options, kRouter);
  }
  return rates;
}

}  // namespace fettle::tune
