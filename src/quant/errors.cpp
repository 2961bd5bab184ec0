// SPDX-License-Identifier: Apache-2.0
#include "quant/errors.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "artifact/model_writer.h"
#include "core/error.h"
#include "io/durable.h"
#include "model/weights/packed_weight.h"
#include "quant/layer_passes.h"

namespace fettle::quant {
namespace {

using model::WeightId;

class Measurement {
 public:
  Measurement(
      const model::ModelReader& reader,
      const MeasureOptions& options,
      Calibrated* data,
      std::filesystem::path file)
      : reader_(reader),
        config_(reader.config()),
        options_(options),
        data_(data),
        file_(std::move(file)) {}

  QuantErrors run();

 private:
  void load();
  void save() const;
  void begin_progress();
  LayerErrors measure(std::int64_t l);
  std::vector<Scheme> candidates(const WeightId& id) const;
  MeasuredWeight begun(const WeightId& id) const;
  double advance(std::int64_t l);

  const model::ModelReader& reader_;
  const model::ModelConfig& config_;
  const MeasureOptions& options_;
  Calibrated* data_;
  std::filesystem::path file_;
  QuantErrors errors_;
  std::optional<sweep::LayerStream> stream_;
  std::optional<Progress> progress_;
};

void Measurement::load() {
  errors_.identity = options_.identity;
  if (!std::filesystem::exists(file_)) return;
  errors_ = QuantErrors::from_json(
      read_json(file_, "quant"), config_, options_.identity, file_.string());
}

// The old file is there until the new one is whole.
void Measurement::save() const {
  io::replace_file(file_, errors_.to_json().dump() + "\n");
}

void Measurement::begin_progress() {
  std::int64_t work = 0;
  for (auto l = static_cast<std::int64_t>(errors_.layers.size()) - 1;
       l < config_.num_layers();
       ++l) {
    for (const WeightId& id : measured_weights(config_, l)) {
      for (const Scheme& scheme : candidates(id)) {
        if (!scheme.keep) work += model::weight_numel(config_, id);
      }
    }
  }
  progress_.emplace(
      options_.reporter,
      "measure",
      static_cast<std::uint64_t>(work),
      "weights");
}

// Each scheme once.
std::vector<Scheme> Measurement::candidates(const WeightId& id) const {
  std::vector<Scheme> schemes;
  for (const Scheme& scheme : options_.candidates(id)) {
    const auto found = std::ranges::find(schemes, scheme);
    if (found == schemes.end()) schemes.push_back(scheme);
  }
  FETTLE_ASSERT(!schemes.empty());
  return schemes;
}

// With all that needs no measuring.
MeasuredWeight Measurement::begun(const WeightId& id) const {
  MeasuredWeight weight{.id = id};
  for (const Scheme& scheme : candidates(id)) {
    MeasuredOption option{scheme};
    if (scheme.keep) {
      option.bytes = artifact::weight_bytes(config_, id, reader_.form(id));
    }
    weight.options.push_back(option);
  }
  return weight;
}

// So that a file of errors holds it.
constexpr double kLeastNats = 1e-40;

// What quantizing by one scheme came to, over `tokens`.
void note_result(
    const Scheme& scheme,
    const QuantizedWeight& result,
    std::int64_t tokens,
    MeasuredWeight& weight) {
  weight.tokens = result.tokens;
  weight.energy = result.energy;
  MeasuredOption& option =
      *std::ranges::find(weight.options, scheme, &MeasuredOption::scheme);
  option.bytes = model::stored_bytes(result.matrix);
  option.error = result.error;
  if (!(result.cost > 0)) return;
  // Embeddings and head have no moments, and prices that are a token's.
  const auto share =
      weight.id.layer < 0 ? std::int64_t{1} : std::max<std::int64_t>(tokens, 1);
  option.nats = std::max(result.cost / static_cast<double>(share), kLeastNats);
}

LayerErrors Measurement::measure(std::int64_t l) {
  LayerErrors layer;
  std::vector<WeightScheme> all;
  for (const WeightId& id : measured_weights(config_, l)) {
    layer.weights.push_back(begun(id));
    for (const MeasuredOption& option : layer.weights.back().options) {
      all.emplace_back(id, option.scheme);
    }
  }
  const std::vector<Site> sites = group_by_site(config_, all);
  GptqOptions gptq = options_.gptq;
  LayerPasses passes{reader_, gptq, options_.moment_bytes};
  passes.prices = options_.prices;
  if (l < 0) {
    gptq.method = Method::kRtn;  // as the quant stage does
  } else if (stream_) {
    passes.model = &data_->model;
    passes.stream = &*stream_;
  }
  quantize_sites(
      passes, l, sites, [&](std::size_t s, std::vector<QuantizedWeight> done) {
        for (std::size_t i = 0; i < done.size(); ++i) {
          const auto& [id, scheme] = sites[s].weights[i];
          MeasuredWeight& weight =
              *std::ranges::find(layer.weights, id, &MeasuredWeight::id);
          note_result(scheme, done[i], errors_.tokens, weight);
          progress_->advance(
              static_cast<std::uint64_t>(model::weight_numel(config_, id)));
        }
      });
  return layer;
}

// Returns the squares of what leaves the layer.
double Measurement::advance(std::int64_t l) {
  const auto weights =
      data_->model.acquire(l, l + 1 < config_.num_layers() ? l + 1 : -1);
  stream_->advance({config_, l, *weights});
  double squares = 0;
  for (std::int64_t m = 0; m < stream_->micro_batches(); ++m) {
    squares += stream_->inputs(m)
                   .to(at::kFloat)
                   .square()
                   .sum(at::kDouble)
                   .item<double>();
  }
  return squares;
}

QuantErrors Measurement::run() {
  const at::NoGradGuard no_grad;
  load();
  if (static_cast<std::int64_t>(errors_.layers.size()) > config_.num_layers()) {
    return std::move(errors_);
  }
  if (data_ != nullptr) {
    stream_.emplace(data_->model, data_->data, data_->activations);
    if (stream_->tokens() == 0) {
      throw UserError(
          "quant",
          "data",
          "expected at least one token of calibration data, found none");
    }
    errors_.tokens = stream_->tokens();
  }
  begin_progress();
  for (std::int64_t l = -1; l < config_.num_layers(); ++l) {
    const bool known = l + 1 < static_cast<std::int64_t>(errors_.layers.size());
    if (!known) errors_.layers.push_back(measure(l));
    if (stream_ && l >= 0) {
      const double outputs = advance(l);
      if (!known) errors_.layers.back().outputs = outputs;
    }
    if (!known) save();
  }
  return std::move(errors_);
}

}  // namespace

bool QuantErrors::priced() const {
  const auto has_nats = [](const MeasuredOption& o) { return o.nats > 0; };
  for (const LayerErrors& layer : layers) {
    for (const MeasuredWeight& weight : layer.weights) {
      if (std::ranges::any_of(weight.options, has_nats)) return true;
    }
  }
  return false;
}

std::vector<WeightId> measured_weights(
    const model::ModelConfig& config, std::int64_t layer) {
  std::vector<WeightId> ids = layer < 0 ? model::model_weights(config)
                                        : model::layer_weights(config, layer);
  std::erase_if(ids, [&](const WeightId& id) {
    return id.layer != layer || !part_of(id.role) ||
           model::weight_numel(config, id) == 0;
  });
  return ids;
}

QuantErrors measure_errors(
    const model::ModelReader& reader,
    const MeasureOptions& options,
    Calibrated* data,
    const std::filesystem::path& file) {
  FETTLE_ASSERT(data != nullptr || options.gptq.method == Method::kRtn);
  return Measurement(reader, options, data, file).run();
}

}  // namespace fettle::quant
