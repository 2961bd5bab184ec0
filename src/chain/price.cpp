// SPDX-License-Identifier: Apache-2.0
#include "chain/price.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include "artifact/model_writer.h"
#include "core/error.h"
#include "quant/nats.h"

namespace fettle::chain {
namespace {

using model::Role;
using model::WeightId;

constexpr const char* kScore = "obs";
// Growth ends where so little of an expert is kept.
constexpr double kLeastShare = 1.0 / 16;

void check_priced(const PriceInput& input) {
  const auto refuse = [](const std::string& subject, const std::string& why) {
    throw UserError(
        "fit", subject, why + "; run fettle analyze --prices again");
  };
  const auto names = input.scores.neuron_scores();
  if (std::ranges::find(names, kScore) == names.end()) {
    refuse("scores", "expected obs among the scores, found none");
  }
  const std::string& model = input.prices.model_fingerprint;
  if (input.scores.model_fingerprint != model) {
    refuse("scores", "expected scores and prices of one model");
  }
  const auto& layers = input.reader.config().layers;
  if (input.scores.layers.size() != layers.size() ||
      input.prices.layers.size() != layers.size() ||
      input.errors.layers.size() != layers.size() + 1) {
    refuse("prices", "expected scores, prices and errors of all layers");
  }
}

std::vector<std::uint32_t> most_needed_first(std::span<const float> scores) {
  std::vector<std::uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::stable_sort(order, [&](std::uint32_t a, std::uint32_t b) {
    return scores[a] > scores[b];
  });
  return order;
}

// What the neurons behind the first w of `order` have of `values`, by w.
std::vector<double> behind(
    std::span<const float> values, const std::vector<std::uint32_t>& order) {
  std::vector<double> sums(order.size() + 1, 0.0);
  for (std::size_t w = order.size(); w-- > 0;) {
    sums[w] = sums[w + 1] + static_cast<double>(values[order[w]]);
  }
  return sums;
}

// The share that the first w have, by w; in proportion where nothing is known.
std::vector<double> share_before(
    std::span<const float> values, const std::vector<std::uint32_t>& order) {
  std::vector<double> shares = behind(values, order);
  const double all = shares.front();
  const auto width =
      static_cast<double>(std::max<std::size_t>(order.size(), 1));
  for (std::size_t w = 0; w < shares.size(); ++w) {
    shares[w] = all > 0 ? 1 - shares[w] / all : static_cast<double>(w) / width;
  }
  return shares;
}

std::span<const float> slice(
    const at::Tensor& values, std::int64_t first, std::int64_t count) {
  FETTLE_ASSERT(values.is_contiguous() && values.scalar_type() == at::kFloat);
  return {
      values.const_data_ptr<float>() + first, static_cast<std::size_t>(count)};
}

class TableMaker {
 public:
  explicit TableMaker(const PriceInput& input)
      : input_(input), config_(input.reader.config()) {}

  PriceTable make() {
    table_.grid = input_.grid;
    table_.fixed_bytes = input_.reader.carried_bytes();
    dearest_ = quant::dearest_mean(input_.errors.layers);
    for (std::int64_t l = -1; l < config_.num_layers(); ++l) add_layer(l);
    add_fixed_bytes();
    return std::move(table_);
  }

 private:
  void add_layer(std::int64_t l) {
    const quant::LayerErrors& errors = input_.errors.layers[l + 1];
    const quant::LayerNats nats(errors, dearest_);
    const std::size_t first = table_.experts.size();
    if (l >= 0) add_experts(l);
    for (const quant::MeasuredWeight& weight : errors.weights) {
      if (model::is_expert_role(weight.id.role)) {
        add_matrix(table_.experts[first + weight.id.expert], weight, nats);
        continue;
      }
      OtherMatrix other{weight.id, priced_schemes(weight, nats), {}};
      for (const quant::MeasuredOption& option : weight.options) {
        other.bytes.push_back(option.bytes);
      }
      table_.others.push_back(std::move(other));
    }
  }

  std::vector<SchemePrice> priced_schemes(
      const quant::MeasuredWeight& weight, const quant::LayerNats& nats) const {
    std::vector<SchemePrice> schemes;
    for (const quant::MeasuredOption& option : weight.options) {
      schemes.push_back({option.scheme, nats.of(weight, option)});
    }
    return schemes;
  }

  void add_experts(std::int64_t l) {
    const artifact::LayerScores& scores = input_.scores.layers[l];
    if (scores.widths.empty()) return;
    const at::Tensor values = scores.neuron.at(kScore).contiguous();
    const auto tokens =
        static_cast<double>(std::max<std::int64_t>(input_.scores.tokens, 1));
    std::int64_t begin = 0;
    for (std::int64_t e = 0; e < scores.num_experts(); ++e) {
      const auto own = slice(values, begin, scores.widths[e]);
      ExpertPrice expert{.layer = l, .expert = e};
      expert.order = most_needed_first(own);
      expert.cut = behind(own, expert.order);
      for (double& nats : expert.cut) {
        nats /= static_cast<double>(input_.prices.tokens);
      }
      expert.tokens =
          static_cast<double>(scores.tokens[e].item<std::int64_t>()) / tokens;
      expert.bias_bytes = bias_bytes(l, e);
      begin += scores.widths[e];
      table_.experts.push_back(std::move(expert));
    }
  }

  std::int64_t bias_bytes(std::int64_t l, std::int64_t e) const {
    std::int64_t bytes = 0;
    const model::LayerConfig& layer = config_.layers[l];
    for (const Role role : {Role::kExpertGateBias, Role::kExpertUpBias}) {
      if (!model::role_info(role).exists(config_, layer)) continue;
      bytes += static_cast<std::int64_t>(
          c10::elementSize(input_.reader.dtype({role, l, e})));
    }
    return bytes;
  }

  void add_matrix(
      ExpertPrice& expert,
      const quant::MeasuredWeight& weight,
      const quant::LayerNats& nats) const {
    const auto& widths = input_.scores.layers[expert.layer].widths;
    const auto begin = std::accumulate(
        widths.begin(), widths.begin() + expert.expert, std::int64_t{0});
    ExpertMatrix matrix{weight.id, priced_schemes(weight, nats), {}};
    const at::Tensor& energy = input_.prices.energy[expert.layer];
    const std::vector<float> alike(expert.order.size(), 1.0f);
    matrix.share = share_before(
        energy.defined() ? slice(energy, begin, expert.width())
                         : std::span<const float>(alike),
        expert.order);
    expert.matrices.push_back(std::move(matrix));
  }

  // Biases go with their neurons.
  void add_fixed_bytes() {
    for (const WeightId& id : model::model_weights(config_)) {
      const bool measured =
          quant::part_of(id.role) && model::weight_numel(config_, id) > 0;
      if (measured || model::is_expert_bias(id.role)) continue;
      table_.fixed_bytes +=
          artifact::weight_bytes(config_, id, input_.reader.form(id));
    }
  }

  const PriceInput& input_;
  const model::ModelConfig& config_;
  // Of all layers, for those without a price: a layer of a mixer alone.
  double dearest_ = 0;
  PriceTable table_;
};

}  // namespace

PriceTable price_table(const PriceInput& input) {
  check_priced(input);
  return TableMaker(input).make();
}

double growth_at(
    const PriceTable& table, const ExpertPrice& expert, std::int64_t width) {
  if (expert.width() == 0) return 1;
  const double kept =
      static_cast<double>(width) / static_cast<double>(expert.width());
  return std::pow(std::max(kept, kLeastShare), -table.calibration.growth);
}

double cut_nats(
    const PriceTable& table, const ExpertPrice& expert, std::int64_t width) {
  return table.calibration.cut * expert.cut[width] *
         growth_at(table, expert, width);
}

void forbid(PriceTable& table, const quant::Scheme& scheme) {
  const auto drop = [&](std::vector<SchemePrice>& schemes) {
    std::erase_if(schemes, [&](const SchemePrice& price) {
      return price.scheme == scheme;
    });
    if (!schemes.empty()) return;
    throw UserError(
        "fit",
        "schemes",
        fmt::format(
            "expected another scheme than {}, found none",
            quant::scheme_name(scheme)));
  };
  for (ExpertPrice& expert : table.experts) {
    for (ExpertMatrix& matrix : expert.matrices) drop(matrix.schemes);
  }
  for (OtherMatrix& other : table.others) {
    const auto found =
        std::ranges::find(other.schemes, scheme, &SchemePrice::scheme);
    if (found == other.schemes.end() || other.schemes.size() == 1) continue;
    other.bytes.erase(other.bytes.begin() + (found - other.schemes.begin()));
    other.schemes.erase(found);
  }
}

std::int64_t matrix_bytes(
    const model::ModelReader& reader,
    const WeightId& id,
    const quant::Scheme& scheme,
    const quant::GridOptions& grid,
    std::int64_t width) {
  const auto whole = model::weight_shape(reader.config(), id);
  const bool down = model::is_down_role(id.role);
  const std::int64_t rows = down ? whole[0] : width;
  const std::int64_t cols = down ? width : whole[1];
  if (rows * cols == 0) return 0;
  if (scheme.keep) {
    const std::int64_t stored =
        artifact::weight_bytes(reader.config(), id, reader.form(id));
    const std::int64_t neurons = whole[down ? 1 : 0];
    return (stored * width + neurons - 1) / neurons;
  }
  return quant::planned_header(scheme, grid, rows, cols).bytes();
}

}  // namespace fettle::chain
