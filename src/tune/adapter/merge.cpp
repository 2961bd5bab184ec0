// SPDX-License-Identifier: Apache-2.0
#include "tune/adapter/merge.h"

#include <cmath>

#include "artifact/model_writer.h"
#include "artifact/run_state.h"
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

}  // namespace

Json MergeReport::to_json() const {
  Json json = Json::object();
  for (const auto& [role, part] : roles) {
    json[role] = {
        {"delta", part.delta},
        {"kept", part.kept},
        {"lost", part.lost},
        {"kept_share", part.kept_share()}};
  }
  return json;
}

MergeReport merge_adapter(
    const model::ModelReader& base,
    const std::filesystem::path& adapter_folder,
    const MergeOptions& options,
    const std::filesystem::path& out,
    Reporter& reporter) {
  const Adapter adapter = Adapter::load(adapter_folder, base);
  io::AtomicDirectory directory(out, artifact::plain_output());
  model::ModelConfig config = base.config();
  adapter.change(config);
  MergeReport report;
  const auto form = [&](const model::WeightId& id) -> model::WeightForm {
    if (is_new(base, id)) return {at::kFloat};
    if (!adapter.changes(id)) return base.form(id);
    return {options.keep_dtype ? base.dtype(id) : at::kFloat};
  };
  const auto tensor = [&](const model::WeightId& id) {
    if (!is_new(base, id) && !adapter.changes(id)) return base.read_stored(id);
    const at::Tensor stored =
        is_new(base, id)
            ? at::zeros(model::weight_shape(config, id), at::kFloat)
            : base.read(id);
    if (!adapter.changes(id)) return stored;
    const at::Tensor before = stored.to(at::kFloat);
    const at::Tensor tuned = adapter.merge(id, before);
    at::Tensor written = tuned.to(form(id).dtype);
    DeltaKept& sums = report.roles[std::string(model::role_name(id.role))];
    add_squares(sums, before, tuned, written.to(at::kFloat));
    return written;
  };
  const Json tuned_by{
      {"method", adapter.info().method}, {"options", adapter.info().options}};
  directory.require_space(
      static_cast<std::uint64_t>(artifact::model_size(config, form).bytes));
  artifact::write_model(
      {.source = base,
       .config = config,
       .form = form,
       .tensor = tensor,
       .record =
           {"merge",
            adapter.info().model_fingerprint,
            {{"adapter", tuned_by},
             {"dtype", options.keep_dtype ? "keep" : "float32"}},
            adapter.info().measured},
       .label = "merge",
       .reporter = &reporter},
      directory.path());
  for (auto& [role, sums] : report.roles) {
    sums = {std::sqrt(sums.delta), std::sqrt(sums.kept), std::sqrt(sums.lost)};
  }
  artifact::set_measured(
      directory.path(),
      {{"tune", adapter.info().measured}, {"delta", report.to_json()}});
  directory.commit();
  return report;
}

}  // namespace fettle::tune
