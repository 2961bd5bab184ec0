// SPDX-License-Identifier: Apache-2.0
// The layout of GPTQModel (once AutoGPTQ). Of module NAME with weights
// [out, in], codes packed as in bit_stream.h:
//
//   NAME.qweight  int32 [in * bits / 32, out]: codes along `in`
//   NAME.qzeros   int32 [groups, out * bits / 32]: zero points along `out`
//   NAME.scales   float16 [groups, out]
//   NAME.g_idx    int32 [in]: the group of each input
//
// A value is (code - zero) x scale. Version 1 stores zero - 1, which a zero of
// 0 has no place in: it is for symmetric weights and read by every loader.
// Version 2 stores the zero.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "artifact/manifest.h"
#include "export/codes/bit_stream.h"
#include "export/codes/code_layout.h"
#include "export/codes/module_patterns.h"
#include "io/file.h"

namespace fettle::exporter {
namespace {

constexpr const char* kFirstVersion = "gptq";
constexpr const char* kSecondVersion = "gptq_v2";

Json form_json(const CodeForm& form) {
  return {
      {"bits", form.bits},
      {"group_size", form.group > 0 ? form.group : -1},
      {"sym", form.symmetric}};
}

class GptqLayout : public CodeLayout {
 public:
  explicit GptqLayout(bool second_version) : second_version_(second_version) {}

  // Mixtral's experts have the names here that transformers gives them in
  // memory.
  std::string tensor_name(const std::string& stock) const override {
    constexpr std::array<std::pair<std::string_view, std::string_view>, 4>
        kNames{{
            {".block_sparse_moe.", ".mlp."},
            {".w1.", ".gate_proj."},
            {".w3.", ".up_proj."},
            {".w2.", ".down_proj."},
        }};
    std::string name = stock;
    for (const auto& [from, to] : kNames) name = replaced(name, from, to);
    return name;
  }

  at::ScalarType scale_type() const override { return at::kHalf; }

  std::vector<io::TensorSpec> specs(
      const std::string& module,
      const std::vector<std::int64_t>& shape,
      const CodeForm& form) const override {
    const std::int64_t out = shape[0], in = shape[1];
    const std::int64_t groups =
        form.group > 0 ? (in + form.group - 1) / form.group : 1;
    return {
        {module + ".qweight",
         io::DType::kI32,
         {stream_words(in, form.bits), out}},
        {module + ".qzeros",
         io::DType::kI32,
         {groups, stream_words(out, form.bits)}},
        {module + ".scales", io::DType::kF16, {groups, out}},
        {module + ".g_idx", io::DType::kI32, {in}}};
  }

  std::vector<at::Tensor> tensors(
      const CodeMatrix& matrix, const CodeForm& form) const override {
    const at::Tensor zeros = matrix.zeros.t() - (second_version_ ? 0 : 1);
    return {
        pack_stream(matrix.codes, form.bits).t(),
        pack_stream(zeros, form.bits),
        matrix.scales.t().to(at::kHalf),
        at::arange(matrix.cols(), at::kInt).floor_divide(matrix.group)};
  }

  at::Tensor read_back(
      const io::Checkpoint& checkpoint,
      const std::string& module,
      const std::vector<std::int64_t>& shape,
      const CodeForm& form) const override {
    const auto read = [&](const char* part, at::ScalarType type) {
      return read_tensor(checkpoint, module + part, type);
    };
    const at::Tensor codes = unpack_stream(
        read(".qweight", at::kInt).t().contiguous(), form.bits, shape[1]);
    const at::Tensor zeros =
        unpack_stream(read(".qzeros", at::kInt), form.bits, shape[0])
            .to(at::kFloat) +
        (second_version_ ? 0 : 1);
    const at::Tensor scales = read(".scales", at::kHalf).to(at::kFloat);
    const at::Tensor group_of = read(".g_idx", at::kInt);
    const auto spread = [&](const at::Tensor& t) {
      return t.index_select(0, group_of).t();
    };
    return (codes.to(at::kFloat) - spread(zeros)) * spread(scales);
  }

  Json config(const CodePlan& plan) const override {
    Json json = form_json(plan.experts);
    json.update(
        {{"quant_method", "gptq"},
         {"desc_act", false},
         {"lm_head", false},
         {"checkpoint_format",
          second_version_ ? kSecondVersion : kFirstVersion},
         {"pack_dtype", "int32"},
         {"meta",
          {{"quantizer",
            Json::array({fmt::format("fettle:{}", artifact::version())})}}}});
    Json exceptional = dynamic(plan);
    if (!exceptional.empty()) json["dynamic"] = std::move(exceptional);
    return json;
  }

  void leave_plain(Json& config, const std::string& regex) const override {
    config["dynamic"]["-:" + regex] = Json::object();
  }

  void write_extra(
      const std::filesystem::path& folder, const Json& config) const override {
    io::write_file(folder / "quantize_config.json", config.dump(2) + "\n");
  }

 private:
  Json dynamic(const CodePlan& plan) const {
    const auto patterns = exceptions(
        plan,
        [](model::Role role) {
          return model::is_attention_role(role) || model::is_mlp_role(role);
        },
        [this](const std::string& stock) { return tensor_name(stock); });
    Json json = Json::object();
    for (const ModulePattern& pattern : patterns) {
      if (pattern.form) {
        json["+:" + pattern.regex] = form_json(*pattern.form);
      } else {
        json["-:" + pattern.regex] = Json::object();
      }
    }
    return json;
  }

  bool second_version_;
};

}  // namespace

CodeRules gptq_rules() {
  return {
      .name = "gptq",
      .groups = {16, 32, 64, 128, 256, 512, 1024},
      .short_groups = true,
      .whole_words = true,
      .recoded_bits = {2, 3, 4, 8}};
}

std::unique_ptr<CodeLayout> gptq_layout(const CodePlan& plan) {
  const bool zeros =
      std::ranges::any_of(plan.weights, [](const PlannedWeight& weight) {
        return weight.form && !weight.form->symmetric;
      });
  return std::make_unique<GptqLayout>(zeros);
}

}  // namespace fettle::exporter
