// SPDX-License-Identifier: Apache-2.0
#include "tune/adapter/merge_adapter.h"

#include <cmath>

#include "artifact/model_writer.h"
#include "artifact/run_state.h"
#include "core/error.h"
#include "io/atomic_directory.h"
#include "model/family/text_part.h"
#include "tune/adapter/adapter.h"

namespace fettle::tune {

namespace {

// Sums of squares while tensors pass, in DeltaKept's fields.
void add_squares(
    DeltaKept& sums,
    const at::Tensor& base,
    const at::Tensor& tuned,
    const at::Tensor& written) {
  const auto squared = [](const at::Tensor& difference) {
    return difference.square().sum(at::kDouble).item<double>();
  };
  sums.delta += squared(tuned - base);
  sums.kept += squared(written - base);
  sums.lost += squared(tuned - written);
}

// Weights that tuning added; what the base adds there is zero.
bool is_new(const model::ModelReader& base, const model::WeightId& id) {
  return id.role == model::Role::kRouterBias &&
         !base.config().layers[id.layer].router_bias;
}

// The type that loaders give a model, where config.json names one.
at::ScalarType loaded_type(const model::ModelReader& base) {
  const std::string name = model::stated_dtype(base.config().json);
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  return base.dtype({model::Role::kFinalNorm});
}

const char* type_name(at::ScalarType type) {
  if (type == at::kFloat) return "float32";
  return type == at::kBFloat16 ? "bfloat16" : "float16";
}

void add_to(DeltaKept& sum, const DeltaKept& part) {
  sum.delta += part.delta;
  sum.kept += part.kept;
  sum.lost += part.lost;
}

DeltaKept root_of(const DeltaKept& sums) {
  return {std::sqrt(sums.delta), std::sqrt(sums.kept), std::sqrt(sums.lost)};
}

// The merged model's tensors, each made when it is asked for.
class Merging {
 public:
  Merging(const model::ModelReader& base, const Adapter& adapter, bool in_float)
      : base_(base),
        adapter_(adapter),
        loaded_(in_float ? at::kFloat : loaded_type(base)),
        in_float_(in_float),
        config_(base.config()) {
    adapter.change(config_);
    if (!in_float) return;
    model::state_dtype(config_.json, type_name(loaded_));
  }

  const model::ModelConfig& config() const { return config_; }

  model::WeightForm form(const model::WeightId& id) const {
    return form(id, in_float_);
  }

  // Counts what the written type rounds off too.
  at::Tensor tensor(const model::WeightId& id) {
    const bool is_added = is_new(base_, id);
    if (!is_added && !adapter_.changes(id)) return base_.read_stored(id);
    const at::Tensor stored =
        is_added ? at::zeros(model::weight_shape(config_, id), at::kFloat)
                 : base_.read(id);
    if (!adapter_.changes(id)) return stored;
    const at::Tensor before = stored.to(at::kFloat);
    const at::Tensor tuned = adapter_.merge(id, before);
    at::Tensor written = tuned.to(form(id).dtype);
    DeltaKept& sums = squares_[std::string(model::role_name(id.role))];
    add_squares(sums, before, tuned, written.to(at::kFloat));
    return written;
  }

  MergeReport report() const {
    MergeReport report;
    for (const auto& [role, sums] : squares_) {
      add_to(report.all, sums);
      report.roles[role] = root_of(sums);
    }
    report.all = root_of(report.all);
    report.dtype = type_name(loaded_);
    report.bytes = bytes(in_float_);
    report.bytes_as_float32 = bytes(true);
    return report;
  }

  std::int64_t bytes(bool in_float) const {
    return artifact::model_size(
               config_,
               [&](const model::WeightId& id) { return form(id, in_float); },
               base_.carried_bytes())
        .bytes;
  }

 private:
  model::WeightForm form(const model::WeightId& id, bool in_float) const {
    if (is_new(base_, id)) return {at::kFloat};
    if (!adapter_.changes(id)) return base_.form(id);
    if (in_float) return {at::kFloat};
    return {base_.form(id).packed() ? loaded_ : base_.dtype(id)};
  }

  const model::ModelReader& base_;
  const Adapter& adapter_;
  at::ScalarType loaded_;
  bool in_float_;
  model::ModelConfig config_;
  std::map<std::string, DeltaKept> squares_;  // by role; see add_squares
};

}  // namespace

void check_merge_dtype(const std::string& dtype) {
  if (dtype == "keep" || dtype == "float32") return;
  throw UserError(
      "merge",
      "dtype",
      "expected keep or float32, found '" + dtype + "'; change this option");
}

Json MergeReport::to_json() const {
  Json json = Json::object();
  for (const auto& [role, part] : roles) {
    json[role] = {
        {"delta", part.delta},
        {"kept", part.kept},
        {"lost", part.lost},
        {"kept_share", part.kept_share()},
        {"lost_share", part.lost_share()}};
  }
  return json;
}

MergeReport merge_adapter(
    const model::ModelReader& base,
    const std::filesystem::path& adapter_folder,
    const MergeOptions& options,
    const std::filesystem::path& out,
    Reporter& reporter) {
  check_merge_dtype(options.dtype);
  const Adapter adapter =
      Adapter::load(adapter_folder, base, {.any_base = options.any_base});
  io::AtomicDirectory directory(out, artifact::plain_output());
  const bool in_float = options.dtype == "float32";
  Merging merging(base, adapter, in_float);
  directory.require_space(static_cast<std::uint64_t>(merging.bytes(in_float)));
  const Json tuned_by{
      {"method", adapter.info().method}, {"options", adapter.info().options}};
  artifact::write_model(
      {.source = base,
       .config = merging.config(),
       .form = [&](const model::WeightId& id) { return merging.form(id); },
       .tensor = [&](const model::WeightId& id) { return merging.tensor(id); },
       .record =
           {"merge",
            adapter.info().model_fingerprint,
            {{"adapter", tuned_by},
             {"dtype", options.dtype},
             {"mtp", artifact::mtp_name(options.mtp)}},
            adapter.info().measured},
       .mtp = options.mtp,
       .label = "merge",
       .reporter = &reporter},
      directory.path());
  const MergeReport report = merging.report();
  artifact::set_measured(
      directory.path(),
      {{"tune", adapter.info().measured}, {"delta", report.to_json()}});
  directory.commit();
  return report;
}

}  // namespace fettle::tune
