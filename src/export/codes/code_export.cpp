// SPDX-License-Identifier: Apache-2.0
#include "export/codes/code_export.h"

#include <fmt/format.h>

#include <utility>

#include "artifact/config_text.h"
#include "artifact/tensor_file.h"
#include "core/error.h"
#include "export/codes/code_layout.h"
#include "export/codes/module_patterns.h"
#include "export/exported_weights.h"
#include "export/value_check.h"
#include "io/checkpoint_writer.h"
#include "model/family/text_part.h"

namespace fettle::exporter {
namespace {

CodeRules rules(const ExportOptions& options) {
  return options.format == Format::kGptq ? gptq_rules()
                                         : compressed_tensors_rules();
}

std::unique_ptr<CodeLayout> make_layout(
    const CodePlan& plan,
    const SourceForms& source,
    const ExportOptions& options) {
  if (options.format == Format::kGptq) return gptq_layout(plan);
  return compressed_tensors_layout(loaded_type(plan.config, source));
}

std::string stored_name(
    const CodePlan& plan, const CodeLayout& layout, const model::WeightId& id) {
  return layout.tensor_name(model::weight_name(plan.config, id));
}

// The tensors of each planned weight.
std::vector<std::vector<io::TensorSpec>> specs_of(
    const CodePlan& plan,
    const CodeLayout& layout,
    const SourceForms& source,
    const ExportOptions& options) {
  std::vector<std::vector<io::TensorSpec>> all;
  for (const PlannedWeight& weight : plan.weights) {
    const auto shape = model::weight_shape(plan.config, weight.id);
    const std::string stock = stored_name(plan, layout, weight.id);
    if (weight.form) {
      all.push_back(layout.specs(module_of(stock), shape, *weight.form));
      continue;
    }
    const at::ScalarType type =
        exported_dtype(source, plan.config, options, weight.id);
    all.push_back(
        {{stock,
          artifact::stored_type(type, stock),
          model::stored_shape(plan.config, weight.id)}});
  }
  return all;
}

class CodeExport {
 public:
  CodeExport(
      const model::ModelReader& reader,
      const ExportOptions& options,
      std::filesystem::path folder)
      : reader_(reader),
        options_(options),
        folder_(std::move(folder)),
        plan_(plan_codes(forms_of(reader), options, rules(options))),
        weights_(reader, plan_.config, options),
        carried_(reader, plan_.config, options.mtp),
        layout_(make_layout(plan_, forms_of(reader), options)),
        specs_(specs_of(plan_, *layout_, forms_of(reader), options)) {}

  ExportResult run() {
    carried_.note(options_.reporter, "export");
    std::size_t next = 0;
    result_.after = artifact::model_size(
        plan_.config,
        [&](const model::WeightId& id) {
          FETTLE_ASSERT(plan_.weights[next].id == id);
          return form(next++);
        },
        carried_.bytes());
    result_.narrowed = weights_.narrows();
    weights_.require_finite();
    artifact::copy_companions(reader_.folder(), folder_);
    write_json();
    write_weights();
    result_.max_error = check();
    return result_;
  }

  double check() const {
    const io::Checkpoint checkpoint = io::Checkpoint::open(folder_);
    ValueCheck values(folder_, options_.nearest);
    for (const PlannedWeight& weight : plan_.weights) {
      const std::string stock = name(weight.id);
      const auto shape = model::weight_shape(plan_.config, weight.id);
      const at::Tensor found =
          weight.form
              ? layout_->read_back(
                    checkpoint, module_of(stock), shape, *weight.form)
              : read_tensor(checkpoint, stock, weights_.form(weight.id).dtype)
                    .view(shape);
      values.compare(stock, found, weights_.meant(weight.id));
    }
    return values.largest();
  }

 private:
  std::string name(const model::WeightId& id) const {
    return stored_name(plan_, *layout_, id);
  }

  // For sizes alone: what all tensors of a weight take.
  model::WeightForm form(std::size_t weight) const {
    std::int64_t bytes = 0;
    for (const io::TensorSpec& spec : specs_[weight]) {
      bytes += static_cast<std::int64_t>(spec.bytes());
    }
    return {at::kFloat, bytes};
  }

  void write_json() const {
    Json json = plan_.config.json;
    carried_.change(json);
    model::text_part(json).erase("quantization_config");
    Json config = layout_->config(plan_);
    for (const std::string& part : carried_.parts()) {
      layout_->leave_plain(config, part_pattern(part));
    }
    json["quantization_config"] = config;
    io::write_file(folder_ / "config.json", artifact::config_text(json));
    layout_->write_extra(folder_, config);
  }

  void write_weights() {
    std::vector<io::TensorSpec> all;
    for (const auto& specs : specs_) {
      all.insert(all.end(), specs.begin(), specs.end());
    }
    for (io::TensorSpec& spec : carried_.specs()) {
      all.push_back(std::move(spec));
    }
    io::CheckpointWriter writer(
        folder_, std::move(all), {.max_shard_bytes = options_.shard_bytes});
    Progress progress(
        options_.reporter, "export", writer.total_bytes(), "bytes");
    for (std::size_t i = 0; i < plan_.weights.size(); ++i) {
      const auto tensors = tensors_of(plan_.weights[i]);
      FETTLE_ASSERT(tensors.size() == specs_[i].size());
      for (std::size_t t = 0; t < tensors.size(); ++t) {
        const at::Tensor tensor = tensors[t].contiguous();
        FETTLE_ASSERT(tensor.sizes().vec() == specs_[i][t].shape);
        writer.write(specs_[i][t].name, artifact::tensor_bytes(tensor));
        progress.advance(tensor.nbytes());
      }
    }
    carried_.write(
        [&](const std::string& tensor, std::span<const std::byte> bytes) {
          writer.write(tensor, bytes);
          progress.advance(bytes.size());
        });
    writer.finish();
  }

  std::vector<at::Tensor> tensors_of(const PlannedWeight& weight) {
    if (!weight.form) {
      const at::Tensor tensor = weights_.tensor(weight.id);
      if (reader_.packed_header(weight.id) != nullptr) {
        note_rounding(
            weight.id, relative_error(tensor, weights_.meant(weight.id)));
      }
      count_type(
          std::string(io::name_of(
              artifact::stored_type(tensor.scalar_type(), name(weight.id)))),
          tensor.numel());
      return {tensor.contiguous().view(
          model::stored_shape(plan_.config, weight.id))};
    }
    const CodeMatrix matrix =
        planned_codes(reader_, plan_.config, weight.id, *weight.form);
    note_rounding(weight.id, scale_error(matrix, layout_->scale_type()));
    count_type(fmt::format("int{}", weight.form->bits), matrix.codes.numel());
    return layout_->tensors(matrix, *weight.form);
  }

  void count_type(const std::string& type, std::int64_t numel) {
    result_.types[type] += numel;
  }

  void note_rounding(const model::WeightId& id, double error) {
    const InexactWeight weight{
        name(id),
        fmt::format(
            "has values that {} can't hold in the type the model is loaded in",
            format_name(options_.format)),
        "quantize it otherwise"};
    result_.rounded += is_rounded(error, options_.nearest, weight) ? 1 : 0;
  }

  const model::ModelReader& reader_;
  const ExportOptions& options_;
  std::filesystem::path folder_;
  CodePlan plan_;
  ExportedWeights weights_;
  artifact::CarriedCopy carried_;
  std::unique_ptr<CodeLayout> layout_;
  std::vector<std::vector<io::TensorSpec>> specs_;  // of each planned weight
  ExportResult result_;
};

}  // namespace

std::string module_of(const std::string& weight) {
  constexpr std::string_view kSuffix = ".weight";
  FETTLE_ASSERT(weight.ends_with(kSuffix));
  return weight.substr(0, weight.size() - kSuffix.size());
}

at::Tensor read_tensor(
    const io::Checkpoint& checkpoint,
    const std::string& name,
    at::ScalarType type) {
  const io::TensorInfo& info = checkpoint.require(name);
  FETTLE_ASSERT(info.dtype == artifact::stored_type(type, name));
  at::Tensor tensor = at::empty(info.shape, at::TensorOptions(type));
  checkpoint.read(name, artifact::writable_bytes(tensor));
  return tensor;
}

std::int64_t code_bytes(
    const SourceForms& source, const ExportOptions& options) {
  const CodePlan plan = plan_codes(source, options, rules(options));
  const auto layout = make_layout(plan, source, options);
  std::int64_t bytes = source.carried_bytes;
  for (const auto& specs : specs_of(plan, *layout, source, options)) {
    for (const io::TensorSpec& spec : specs) {
      bytes += static_cast<std::int64_t>(spec.bytes());
    }
  }
  return bytes;
}

ExportResult export_codes(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder) {
  return CodeExport(reader, options, folder).run();
}

double check_codes(
    const model::ModelReader& reader,
    const ExportOptions& options,
    const std::filesystem::path& folder) {
  return CodeExport(reader, options, folder).check();
}

}  // namespace fettle::exporter
