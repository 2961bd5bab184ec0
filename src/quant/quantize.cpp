// SPDX-License-Identifier: Apache-2.0
#include "quant/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "artifact/manifest.h"
#include "artifact/run_state.h"
#include "artifact/shard_set.h"
#include "artifact/tensor_file.h"
#include "core/error.h"
#include "io/durable.h"
#include "io/file.h"
#include "model/weights/packed_layer.h"
#include "quant/layer_passes.h"
#include "quant/site_exchange.h"
#include "quant/written_layer.h"
#include "ranks/group.h"
#include "sweep/layer_stream.h"

namespace fettle::quant {
namespace {

using artifact::NamedTensor;
using model::WeightId;

std::string packed_name_of(
    const model::ModelConfig& config, const WeightId& id) {
  return model::weight_name(config, id) + std::string(model::kPackedSuffix);
}

class Run {
 public:
  Run(const model::ModelReader& reader,
      const QuantOptions& options,
      Calibrated* data,
      const std::filesystem::path& folder)
      : reader_(reader),
        config_(reader.config()),
        options_(options),
        data_(data),
        folder_(folder),
        shards_(folder, config_.num_layers() + 1) {}

  QuantResult run();

 private:
  void check_identity() const;
  LayerRecord globals();
  LayerRecord layer(std::int64_t l);
  const ranks::Team& team() const;
  bool leads() const { return team().leads(); }
  // What rank 0 has of a shard.
  std::optional<Json> find(std::int64_t shard) const;
  // The packed weights of a layer, as rank 0 wrote them.
  StoredTensors packed_weights(std::int64_t l) const;
  std::vector<QuantizedWeight> quantize(
      std::int64_t l,
      const std::vector<WeightId>& ids,
      const GptqOptions& gptq);
  LayerRecord write(
      std::int64_t shard,
      const std::vector<WeightId>& ids,
      std::vector<QuantizedWeight> quantized,
      double seconds);
  void advance(std::int64_t l);
  void finish_folder(
      const artifact::CarriedCopy& carried, QuantResult& result) const;

  const model::ModelReader& reader_;
  const model::ModelConfig& config_;
  const QuantOptions& options_;
  Calibrated* data_;
  std::filesystem::path folder_;
  artifact::ShardSet shards_;
  std::optional<sweep::LayerStream> stream_;
  std::optional<Progress> progress_;
};

const ranks::Team& Run::team() const {
  static const ranks::Team kAlone;
  return data_ != nullptr ? data_->division.team : kAlone;
}

std::optional<Json> Run::find(std::int64_t shard) const {
  std::optional<Json> note;
  if (leads()) note = shards_.find(shard);
  if (!team().divides()) return note;
  const Json shared = Json::parse(
      ranks::broadcast_text(*team().group, (note ? *note : Json()).dump(), 0));
  if (shared.is_null()) return std::nullopt;
  return shared;
}

// Shards are only taken over from a run that says that it was this one.
void Run::check_identity() const {
  const std::filesystem::path path = folder_ / artifact::kShardIdentity;
  if (std::filesystem::exists(path)) {
    artifact::check_same_run(
        read_json(path, "quant"), options_.identity, "quant");
    return;
  }
  if (shards_.any()) {
    throw UserError(
        "quant",
        path.string(),
        "expected what the parts beside it were made from, found no such "
        "file; begin anew with --restart");
  }
  io::replace_file(path, options_.identity.dump(2) + "\n");
}

std::vector<QuantizedWeight> Run::quantize(
    std::int64_t l, const std::vector<WeightId>& ids, const GptqOptions& gptq) {
  std::vector<WeightScheme> weights;
  for (const WeightId& id : ids) {
    if (part_of(id.role)) weights.emplace_back(id, options_.scheme(id));
  }
  const std::vector<Site> sites = group_by_site(config_, weights);
  LayerPasses passes{reader_, gptq, options_.moment_bytes};
  if (stream_ && l >= 0) {
    passes.model = &data_->model;
    passes.stream = &*stream_;
    passes.team = team();
  }
  std::vector<std::vector<QuantizedWeight>> results(sites.size());
  quantize_sites(
      passes, l, sites, [&](std::size_t s, std::vector<QuantizedWeight> done) {
        results[s] = std::move(done);
        for (const QuantizedWeight& weight : results[s]) {
          progress_->advance(static_cast<std::uint64_t>(
              model::weight_numel(config_, weight.id)));
        }
      });
  if (passes.team.divides()) gather_at_rank_0(*passes.team.group, results);
  std::vector<QuantizedWeight> all;
  for (auto& some : results) std::ranges::move(some, std::back_inserter(all));
  return all;
}

LayerRecord Run::write(
    std::int64_t shard,
    const std::vector<WeightId>& ids,
    std::vector<QuantizedWeight> quantized,
    double seconds) {
  std::vector<NamedTensor> tensors;
  LayerRecord record{.layer = shard - 1, .seconds = seconds};
  for (const WeightId& id : ids) {
    const auto found = std::ranges::find(quantized, id, &QuantizedWeight::id);
    const at::Tensor tensor = found != quantized.end()
                                  ? model::to_stored(found->matrix)
                                  : reader_.read_stored(id);
    model::WeightForm form = reader_.form(id);
    if (found != quantized.end()) {
      form = {at::kByte, static_cast<std::int64_t>(tensor.nbytes())};
      found->matrix = {};
    }
    tensors.push_back({artifact::tensor_spec(config_, id, form), tensor});
    if (!part_of(id.role)) continue;
    RoleRecord& role = record.roles[std::string(model::role_name(id.role))];
    const RoleRecord one{
        .weights = model::weight_numel(config_, id),
        .bytes = static_cast<std::int64_t>(tensor.nbytes())};
    role.weights += one.weights;
    role.bytes += one.bytes;
    if (id.expert >= 0) {
      // Weights come in the order of their experts.
      record.expert_bits[std::string(model::role_name(id.role))].push_back(
          std::round(1e3 * bits_per_weight(one)) / 1e3);
    }
    if (found == quantized.end()) continue;
    role.error += found->error;
    role.energy += found->energy;
    ++role.matrices;
    role.scarce += found->scarce ? 1 : 0;
    role.unseen += found->scarce && found->tokens == 0 ? 1 : 0;
  }
  shards_.write(shard, tensors, record.note());
  return record;
}

LayerRecord Run::globals() {
  if (const auto note = find(0)) return LayerRecord::from_json(*note);
  if (!leads()) return {};
  std::vector<WeightId> ids;
  for (const WeightId& id : model::model_weights(config_)) {
    if (id.layer < 0) ids.push_back(id);
  }
  const auto start = std::chrono::steady_clock::now();
  // Embeddings are looked up, not multiplied: the nearest level is the best.
  GptqOptions nearest = options_.gptq;
  nearest.method = Method::kRtn;
  auto quantized = quantize(-1, ids, nearest);
  const std::chrono::duration<double> taken =
      std::chrono::steady_clock::now() - start;
  return write(0, ids, std::move(quantized), taken.count());
}

LayerRecord Run::layer(std::int64_t l) {
  LayerRecord record;
  if (const auto note = find(l + 1)) {
    record = LayerRecord::from_json(*note);
  } else {
    const auto start = std::chrono::steady_clock::now();
    const std::vector<WeightId> ids = model::layer_weights(config_, l);
    auto quantized = quantize(l, ids, options_.gptq);
    const std::chrono::duration<double> taken =
        std::chrono::steady_clock::now() - start;
    if (leads()) {
      record = write(l + 1, ids, std::move(quantized), taken.count());
    }
  }
  if (stream_ && l + 1 < config_.num_layers()) advance(l);
  return record;
}

StoredTensors Run::packed_weights(std::int64_t l) const {
  StoredTensors packed;
  if (leads()) {
    const auto checkpoint =
        io::Checkpoint::open(folder_, shards_.file_name(l + 1));
    for (const WeightId& id : model::layer_weights(config_, l)) {
      const std::string name = packed_name_of(config_, id);
      const io::TensorInfo* tensor = checkpoint.find(name);
      if (tensor == nullptr) continue;
      at::Tensor stored =
          at::empty({static_cast<std::int64_t>(tensor->bytes())}, at::kByte);
      checkpoint.read(name, artifact::writable_bytes(stored));
      packed[name] = stored;
    }
  }
  if (team().divides()) share(*team().group, packed);
  return packed;
}

// The tokens pass through the layer as it was written, so that a run that was
// resumed sees what one that was not does.
void Run::advance(std::int64_t l) {
  const auto read = data_->model.acquire(l, l + 1);
  model::PackedLayer packed;
  const StoredTensors stored = packed_weights(l);
  for (const WeightId& id : model::layer_weights(config_, l)) {
    const auto found = stored.find(packed_name_of(config_, id));
    if (found == stored.end()) continue;
    packed.put(id, {model::from_stored(found->second, found->first), {}});
  }
  const model::LayerWeights weights = as_written(
      reader_,
      l,
      *read,
      std::move(packed),
      data_->model.options().compute_type);
  stream_->advance({config_, l, weights});
}

QuantResult Run::run() {
  const at::NoGradGuard no_grad;
  if (leads()) check_identity();
  // First, since it refuses what can't be carried.
  const artifact::CarriedCopy carried(reader_, config_, options_.mtp);
  if (data_ != nullptr) {
    stream_.emplace(
        data_->model, data_->data, data_->activations, data_->division);
    if (stream_->tokens() == 0) {
      throw UserError(
          "quant",
          "data",
          "expected at least one token of calibration data, found none");
    }
  }
  std::int64_t work = 0;
  for (const WeightId& id : model::model_weights(config_)) {
    if (part_of(id.role) && !options_.scheme(id).keep) {
      work += model::weight_numel(config_, id);
    }
  }
  progress_.emplace(
      options_.reporter, "quant", static_cast<std::uint64_t>(work), "weights");
  QuantResult result;
  result.tokens = stream_ ? stream_->tokens() : 0;
  result.layers.push_back(globals());
  for (std::int64_t l = 0; l < config_.num_layers(); ++l) {
    result.layers.push_back(layer(l));
  }
  progress_.reset();
  if (leads()) finish_folder(carried, result);
  return result;
}

void Run::finish_folder(
    const artifact::CarriedCopy& carried, QuantResult& result) const {
  carried.note(options_.reporter, "quant");
  shards_.write_carried(carried);
  shards_.write_index();
  artifact::copy_companions(reader_.folder(), folder_);
  artifact::write_config(
      folder_, config_, artifact::StoredAs::kPacked, carried);
  result.before = artifact::stored_size(reader_);
  const model::ModelReader written(folder_);
  result.after = artifact::model_size(
      config_,
      [&](const WeightId& id) { return written.form(id); },
      written.carried_bytes());
  io::write_file(
      folder_ / "quant_report.json", result.to_json().dump(2) + "\n");
  io::write_file(folder_ / "timings.json", result.timings().dump(2) + "\n");
  artifact::write_manifest(
      reader_.folder(),
      folder_,
      {.stage = "quant",
       .input_fingerprint = options_.input_fingerprint,
       .options = options_.identity,
       .measured = {
           {"before", result.before.to_json()},
           {"after", result.after.to_json()}}});
}

Json to_json(const RoleRecord& role) {
  return {
      {"weights", role.weights},
      {"bytes", role.bytes},
      {"bits_per_weight", bits_per_weight(role)},
      {"error", role.error},
      {"energy", role.energy},
      {"matrices", role.matrices},
      {"scarce", role.scarce},
      {"unseen", role.unseen}};
}

// Small enough that sums over all layers fit.
std::int64_t read_count(const JsonObject& role, const char* key) {
  constexpr std::int64_t kMost = std::int64_t{1} << 48;
  const std::int64_t found = role.integer(key);
  if (found < 0 || found > kMost) {
    role.refuse(key, fmt::format("expected 0 to {}, found {}", kMost, found));
  }
  return found;
}

std::vector<double> read_numbers(
    const JsonObject& from, const std::string& key) {
  const Json& list = from.at(key);
  const auto is_number = [](const Json& one) { return one.is_number(); };
  if (!list.is_array() || !std::ranges::all_of(list, is_number)) {
    from.refuse(key, "expected a list of numbers");
  }
  return list.get<std::vector<double>>();
}

}  // namespace

double bits_per_weight(const RoleRecord& role) {
  if (role.weights == 0) return 0.0;
  return 8.0 * static_cast<double>(role.bytes) /
         static_cast<double>(role.weights);
}

Json LayerRecord::to_json() const {
  Json json{{"layer", layer}};
  json["roles"] = Json::object();
  for (const auto& [name, role] : roles) {
    json["roles"][name] = quant::to_json(role);
  }
  return json;
}

Json LayerRecord::note() const {
  Json json = to_json();
  json["expert_bits"] = expert_bits;
  return json;
}

LayerRecord LayerRecord::from_json(const Json& json) {
  const JsonObject object(json, "quant", "a shard's record");
  LayerRecord record{.layer = object.integer("layer"), .roles = {}};
  const JsonObject roles = object.object("roles");
  for (const auto& [name, value] : roles.json().items()) {
    const JsonObject role = roles.object(name);
    record.roles[name] = {
        .weights = read_count(role, "weights"),
        .bytes = read_count(role, "bytes"),
        .error = role.number("error"),
        .energy = role.number("energy"),
        .matrices = read_count(role, "matrices"),
        .scarce = read_count(role, "scarce"),
        .unseen = read_count(role, "unseen")};
  }
  const JsonObject bits = object.object("expert_bits");
  for (const auto& [name, value] : bits.json().items()) {
    record.expert_bits[name] = read_numbers(bits, name);
  }
  return record;
}

Json QuantResult::to_json() const {
  Json list = Json::array();
  for (const LayerRecord& layer : layers) list.push_back(layer.to_json());
  return {
      {"before", before.to_json()},
      {"after", after.to_json()},
      {"tokens", tokens},
      {"layers", std::move(list)}};
}

Json QuantResult::timings() const {
  Json list = Json::array();
  for (const LayerRecord& layer : layers) {
    list.push_back({{"layer", layer.layer}, {"seconds", layer.seconds}});
  }
  return {{"layers", std::move(list)}};
}

std::optional<std::int64_t> resumed_micro_batch(
    const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / artifact::kShardIdentity;
  if (!std::filesystem::exists(path)) return std::nullopt;
  const Json json = read_json(path, "quant");
  const JsonObject state(json, "quant", path.string());
  if (!state.has("micro_batch_tokens")) return std::nullopt;
  const std::int64_t tokens = state.integer("micro_batch_tokens");
  if (tokens < 1) {
    state.refuse(
        "micro_batch_tokens",
        fmt::format("expected 1 or more, found {}", tokens));
  }
  return tokens;
}

QuantResult quantize_model(
    const model::ModelReader& reader,
    const QuantOptions& options,
    Calibrated* data,
    const std::filesystem::path& folder) {
  FETTLE_ASSERT(data != nullptr || options.gptq.method == Method::kRtn);
  return Run(reader, options, data, folder).run();
}

}  // namespace fettle::quant
