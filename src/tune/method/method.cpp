// SPDX-License-Identifier: Apache-2.0
#include "tune/method/method.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "tune/method/method_condenser.h"
#include "tune/method/method_esft.h"
#include "tune/method/method_full.h"
#include "tune/method/method_lora.h"
#include "tune/method/method_router.h"
#include "tune/method/method_smt.h"
#include "tune/method/method_usaf.h"
#include "tune/options/router_options.h"

namespace fettle::tune {

namespace {

const Method& find_method(const std::string& name) {
  const auto found = std::ranges::find(methods(), name, &Method::name);
  if (found != methods().end()) return *found;
  std::vector<std::string> known;
  for (const Method& method : methods()) known.emplace_back(method.name);
  throw UserError(
      "tune",
      "method",
      fmt::format(
          "expected one of {}, or several joined by +, found '{}'",
          fmt::join(known, ", "),
          name));
}

// The methods asked for, and the routers' where they are trained beside.
std::vector<Method> chosen_methods(const TuneOptions& options) {
  std::vector<Method> chosen;
  bool router = false;
  for (const std::string& name : methods_of(options)) {
    chosen.push_back(find_method(name));
    router = router || chosen.back().make == kRouterMethod.make;
  }
  if (!router && trains_router(options)) chosen.push_back(kRouterMethod);
  return chosen;
}

}  // namespace

std::span<const Method> methods() {
  static const Method kMethods[] = {
      kUsafMethod,
      kSmtMethod,
      kEsftMethod,
      kFullMethod,
      kLoraMethod,
      kCondenserMethod,
      kRouterMethod,
      kRouterKdMethod};
  return kMethods;
}

void check_methods(
    const TuneOptions& options, const model::ModelConfig& config) {
  if (methods_of(options).empty()) find_method("");
  std::map<model::Role, std::string> writers;
  for (const Method& method : chosen_methods(options)) {
    for (const model::Role role : method.roles(options, config)) {
      const auto [writer, is_new] = writers.emplace(role, method.name);
      if (is_new) continue;
      throw UserError(
          "tune",
          "method",
          fmt::format(
              "expected methods that train different weights, found {} of both "
              "{} and {}; leave one out",
              model::role_name(role),
              writer->second,
              method.name));
    }
  }
}

Parts make_parts(const PartInput& input) {
  Parts parts;
  for (const Method& method : chosen_methods(input.options)) {
    for (auto& part : method.make(input)) parts.push_back(std::move(part));
  }
  return parts;
}

bool trains_globals(
    const TuneOptions& options, const model::ModelConfig& config) {
  const auto is_global = [](model::Role role) {
    return role == model::Role::kEmbedTokens || role == model::Role::kLmHead;
  };
  return std::ranges::any_of(
      chosen_methods(options), [&](const Method& method) {
        return std::ranges::any_of(method.roles(options, config), is_global);
      });
}

PartBytes& PartBytes::operator+=(const PartBytes& other) {
  ram += other.ram;
  device += other.device;
  divided_ram += other.divided_ram;
  divided_device += other.divided_device;
  return *this;
}

PartBytes at_work(double bytes, at::Device device, double divided) {
  return device.is_cpu()
             ? PartBytes{.ram = bytes, .divided_ram = divided}
             : PartBytes{.device = bytes, .divided_device = divided};
}

DiskUse saved_from_memory(double bytes) {
  // All but the gradients, which are a quarter.
  return {.held = 2.0 * 0.75 * bytes};
}

PartBytes part_bytes(
    const TuneOptions& options,
    const model::ModelConfig& config,
    at::Device device,
    std::int64_t ranks) {
  PartBytes sum;
  for (const Method& method : chosen_methods(options)) {
    sum += method.bytes(options, config, device);
  }
  const double others = 1.0 - state_share(config.num_layers(), ranks);
  sum.ram -= others * sum.divided_ram;
  sum.device -= others * sum.divided_device;
  sum.divided_ram *= 1.0 - others;
  sum.divided_device *= 1.0 - others;
  return sum;
}

double layer_gradient_bytes(
    const TuneOptions& options, const model::ModelConfig& config) {
  std::vector<double> layers(config.layers.size());
  double outside = 0.0;
  for (const model::WeightId& id : model::model_weights(config)) {
    (id.layer < 0 ? outside : layers[id.layer]) +=
        static_cast<double>(model::weight_numel(config, id));
  }
  const double layer = layers.empty() ? 0.0 : *std::ranges::max_element(layers);
  // A part has the gradient of as much, the value and two moments.
  const PartBytes parts = part_bytes(options, config, at::kCPU);
  return has_method(options, kFullMethod.name)
             ? 4.0 * std::max(layer, outside)
             : std::min(4.0 * layer, 0.25 * parts.ram);
}

DiskUse part_disk_use(
    const TuneOptions& options, const model::ModelConfig& config) {
  DiskUse total;
  for (const Method& method : chosen_methods(options)) {
    const DiskUse use =
        method.disk == nullptr
            ? saved_from_memory(method.bytes(options, config, at::kCPU).ram)
            : method.disk(options, config);
    total.held += use.held;
    total.read += use.read;
    total.written += use.written;
  }
  return total;
}

}  // namespace fettle::tune
