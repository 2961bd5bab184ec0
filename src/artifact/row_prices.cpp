// SPDX-License-Identifier: Apache-2.0
#include "artifact/row_prices.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "artifact/tensor_file.h"
#include "core/error.h"

namespace fettle::artifact {
namespace {

using model::Role;

constexpr const char* kPricesFormat = "1";

std::string price_name(const char* kind, std::int64_t layer, Role role) {
  const auto name = model::role_name(role);
  return layer < 0 ? fmt::format("{}.{}", kind, name)
                   : fmt::format("layers.{}.{}.{}", layer, kind, name);
}

void add_prices(
    const char* kind,
    std::int64_t layer,
    const RolePrices& prices,
    TensorMap& into) {
  for (const auto& [role, values] : prices) {
    into[price_name(kind, layer, role)] = values;
  }
}

[[noreturn]] void refuse_prices(
    const std::filesystem::path& file, const std::string& why) {
  throw UserError("fit", file.string(), why + "; run fettle analyze again");
}

// Rows of all matrices of the role in the layer.
std::int64_t values_of(
    const model::ModelConfig& config, std::int64_t layer, Role role) {
  std::int64_t rows = 0;
  const auto ids = layer < 0 ? model::model_weights(config)
                             : model::layer_weights(config, layer);
  for (const model::WeightId& id : ids) {
    if (id.role != role || id.layer != layer) continue;
    rows += model::weight_shape(config, id).front();
  }
  return rows;
}

class PriceFile {
 public:
  PriceFile(const std::filesystem::path& file, TensorMap tensors)
      : file_(file), tensors_(std::move(tensors)) {}

  // Those that there are of a layer, of the sizes that `expected` tells.
  template <typename Expected>
  RolePrices take(
      const char* kind, std::int64_t layer, const Expected& expected) const {
    RolePrices result;
    for (const model::RoleInfo& info : model::role_infos()) {
      const auto found = tensors_.find(price_name(kind, layer, info.role));
      if (found == tensors_.end()) continue;
      result[info.role] = checked(*found, expected(info.role));
    }
    return result;
  }

  at::Tensor energy(std::int64_t layer, std::int64_t neurons) const {
    const auto found = tensors_.find(fmt::format("layers.{}.energy", layer));
    return found == tensors_.end() ? at::Tensor() : checked(*found, neurons);
  }

 private:
  at::Tensor checked(
      const TensorMap::value_type& entry, std::int64_t count) const {
    const auto& [name, values] = entry;
    if (values.dim() != 1 || values.scalar_type() != at::kFloat ||
        values.size(0) != count) {
      refuse_prices(
          file_,
          fmt::format(
              "expected {} fp32 values in {}, found others", count, name));
    }
    return values;
  }

  std::filesystem::path file_;
  TensorMap tensors_;
};

std::int64_t tokens_of(
    const std::filesystem::path& file, const io::Metadata& metadata) {
  const auto found = metadata.find("tokens");
  std::int64_t tokens = 0;
  if (found == metadata.end())
    refuse_prices(file, "expected a count of tokens");
  const std::string& text = found->second;
  std::from_chars(text.data(), text.data() + text.size(), tokens);
  if (tokens < 1) refuse_prices(file, "expected a count of tokens");
  return tokens;
}

}  // namespace

at::Tensor RowPrices::of(
    const model::ModelConfig& config, const model::WeightId& id) const {
  const RolePrices& all = id.layer < 0 ? globals : layers.at(id.layer);
  const auto found = all.find(id.role);
  if (found == all.end()) return {};
  std::int64_t first = 0;
  for (std::int64_t e = 0; e < id.expert; ++e) {
    first += model::weight_shape(config, {id.role, id.layer, e}).front();
  }
  return found->second.narrow(
      0, first, model::weight_shape(config, id).front());
}

void RowPrices::save(const std::filesystem::path& folder) const {
  TensorFile file;
  file.metadata = {
      {"format", kPricesFormat},
      {"model_fingerprint", model_fingerprint},
      {"tokens", fmt::format("{}", tokens)}};
  add_prices("prices", -1, globals, file.tensors);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const auto layer = static_cast<std::int64_t>(l);
    add_prices("prices", layer, layers[l], file.tensors);
    if (energy[l].defined()) {
      file.tensors[fmt::format("layers.{}.energy", l)] = energy[l];
    }
  }
  save_tensors(folder / kRowPricesFile, file);
}

RowPrices RowPrices::load(
    const std::filesystem::path& folder,
    const model::ModelConfig& config,
    const std::string& fingerprint) {
  const std::filesystem::path path = folder / kRowPricesFile;
  TensorFile file = load_tensors(path, {.finite = true});
  const auto text = [&](const char* key) {
    const auto found = file.metadata.find(key);
    return found == file.metadata.end() ? std::string() : found->second;
  };
  if (text("format") != kPricesFormat) {
    refuse_prices(path, "expected row prices, found something else");
  }
  RowPrices prices;
  prices.model_fingerprint = text("model_fingerprint");
  if (prices.model_fingerprint != fingerprint) {
    refuse_prices(
        path,
        fmt::format(
            "expected prices of the model {}, found those of another ({})",
            fingerprint,
            prices.model_fingerprint));
  }
  prices.tokens = tokens_of(path, file.metadata);
  const PriceFile taken(path, std::move(file.tensors));
  prices.globals = taken.take(
      "prices", -1, [&](Role role) { return values_of(config, -1, role); });
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    prices.layers.push_back(taken.take(
        "prices", l, [&](Role role) { return values_of(config, l, role); }));
    prices.energy.push_back(taken.energy(l, config.layers[l].total_width()));
  }
  return prices;
}

}  // namespace fettle::artifact
