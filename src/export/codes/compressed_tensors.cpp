// SPDX-License-Identifier: Apache-2.0
// The pack-quantized form of compressed-tensors, which vLLM and transformers
// load. Of module NAME with weights [rows, cols]:
//
//   NAME.weight_packed      int32 [rows, words]: codes along the row, see
//                           bit_stream.h
//   NAME.weight_scale       [rows, groups], in the type the model is loaded in
//   NAME.weight_shape       int64 [2]: rows, cols
//   NAME.weight_zero_point  int32 [words, groups], packed along the rows; of
//                           asymmetric weights alone
//
// A stored code is q + 2^(bits - 1) of the signed q, which is Fettle's own
// code. The experts' scheme is that of all linear modules; others are named.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "artifact/tensor_file.h"
#include "export/codes/bit_stream.h"
#include "export/codes/code_layout.h"
#include "export/codes/module_patterns.h"

namespace fettle::exporter {
namespace {

using model::Role;

Json scheme_json(const CodeForm& form, Json targets) {
  const bool group = form.group > 0;
  return {
      {"targets", std::move(targets)},
      {"format", "pack-quantized"},
      {"weights",
       {{"num_bits", form.bits},
        {"type", "int"},
        {"symmetric", form.symmetric},
        {"strategy", group ? "group" : "channel"},
        {"group_size", group ? Json(form.group) : Json()},
        {"dynamic", false}}},
      {"input_activations", nullptr},
      {"output_activations", nullptr}};
}

// Embeddings are none.
bool is_linear_module(Role role) {
  constexpr std::array kNeverPacked = {
      Role::kRouter,
      Role::kSharedRouter,
      Role::kDeltaBeta,
      Role::kDeltaDecay,
      Role::kDeltaBetaDecay};
  return model::is_attention_role(role) || model::is_mlp_role(role) ||
         std::ranges::find(kNeverPacked, role) != kNeverPacked.end();
}

// transformers takes any pattern with "experts" in it for that of the experts.
std::string hidden_from_experts(const std::string& regex) {
  return "re:" + replaced(regex, "shared_experts", "shared_exp[e]rts");
}

class CompressedTensors : public CodeLayout {
 public:
  explicit CompressedTensors(at::ScalarType type) : type_(type) {}

  at::ScalarType scale_type() const override { return type_; }

  std::vector<io::TensorSpec> specs(
      const std::string& module,
      const std::vector<std::int64_t>& shape,
      const CodeForm& form) const override {
    const std::int64_t rows = shape[0], cols = shape[1];
    const std::int64_t groups =
        form.group > 0 ? (cols + form.group - 1) / form.group : 1;
    std::vector<io::TensorSpec> specs{
        {module + ".weight_packed",
         io::DType::kI32,
         {rows, stream_words(cols, form.bits)}},
        {module + ".weight_scale",
         artifact::stored_type(type_, module),
         {rows, groups}},
        {module + ".weight_shape", io::DType::kI64, {2}}};
    if (!form.symmetric) {
      specs.push_back(
          {module + ".weight_zero_point",
           io::DType::kI32,
           {stream_words(rows, form.bits), groups}});
    }
    return specs;
  }

  std::vector<at::Tensor> tensors(
      const CodeMatrix& matrix, const CodeForm& form) const override {
    std::vector<at::Tensor> tensors{
        pack_stream(matrix.codes, form.bits),
        matrix.scales.to(type_),
        at::tensor({matrix.rows(), matrix.cols()}, at::kLong)};
    if (!form.symmetric) {
      tensors.push_back(pack_stream(matrix.zeros.t(), form.bits).t());
    }
    return tensors;
  }

  at::Tensor read_back(
      const io::Checkpoint& checkpoint,
      const std::string& module,
      const std::vector<std::int64_t>& shape,
      const CodeForm& form) const override {
    const auto read = [&](const char* part, at::ScalarType type) {
      return read_tensor(checkpoint, module + part, type);
    };
    const at::Tensor scales = read(".weight_scale", type_).to(at::kFloat);
    const at::Tensor codes =
        unpack_stream(read(".weight_packed", at::kInt), form.bits, shape[1]);
    at::Tensor zeros =
        at::full_like(scales, static_cast<double>(1 << (form.bits - 1)));
    if (!form.symmetric) {
      zeros = unpack_stream(
                  read(".weight_zero_point", at::kInt).t().contiguous(),
                  form.bits,
                  shape[0])
                  .t()
                  .to(at::kFloat);
    }
    const std::int64_t group = form.group > 0 ? form.group : shape[1];
    const auto spread = [&](const at::Tensor& t) {
      return t.repeat_interleave(group, 1).narrow(1, 0, shape[1]);
    };
    return (codes.to(at::kFloat) - spread(zeros)) * spread(scales);
  }

  Json config(const CodePlan& plan) const override {
    std::map<CodeForm, Json> others;
    Json ignore = Json::array({"lm_head"});
    const auto stock = [](const std::string& name) { return name; };
    for (const ModulePattern& one : exceptions(plan, is_linear_module, stock)) {
      Json& list = one.form ? others[*one.form] : ignore;
      list.push_back(hidden_from_experts(one.regex));
    }
    // Loaders take the first target that fits a module.
    Json groups = Json::object();
    const auto add = [&](const CodeForm& form, Json targets) {
      groups[fmt::format("group_{}", groups.size())] =
          scheme_json(form, std::move(targets));
    };
    for (auto& [form, patterns] : others) add(form, std::move(patterns));
    add(plan.experts, Json::array({"Linear"}));
    return {
        {"quant_method", "compressed-tensors"},
        {"format", "pack-quantized"},
        {"quantization_status", "compressed"},
        {"config_groups", std::move(groups)},
        {"ignore", std::move(ignore)},
        {"kv_cache_scheme", nullptr},
        {"global_compression_ratio", nullptr}};
  }

  void leave_plain(Json& config, const std::string& regex) const override {
    config["ignore"].push_back("re:" + regex);
  }

 private:
  at::ScalarType type_;
};

}  // namespace

// Where codes are changed, to bits that all loaders have kernels for.
CodeRules compressed_tensors_rules() {
  return {
      .name = "compressed-tensors",
      .experts_alike = true,
      .recoded_bits = {4, 8}};
}

std::unique_ptr<CodeLayout> compressed_tensors_layout(at::ScalarType type) {
  return std::make_unique<CompressedTensors>(type);
}

}  // namespace fettle::exporter
