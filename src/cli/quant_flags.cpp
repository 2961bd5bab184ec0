// SPDX-License-Identifier: Apache-2.0
#include "cli/quant_flags.h"

#include "core/error.h"

namespace fettle::cli {
namespace {

void add_schemes(CLI::App& app, QuantFlags& flags) {
  const auto scheme =
      [&](const char* name, std::string& into, const char* help) {
        auto* option = app.add_option(name, into, help)
                           ->check(CLI::IsMember(quant::scheme_names()));
        if (!into.empty()) option->capture_default_str();
      };
  scheme("--bits", flags.bits, "Scheme of the experts");
  scheme("--down", flags.down, "Of their down projections (default: --bits)");
  scheme("--attention", flags.attention, "Of the attention's projections");
  scheme("--shared", flags.shared, "Of shared experts");
  scheme("--dense", flags.dense, "Of dense layers' MLPs");
  scheme("--embeddings", flags.embeddings, "Of the embeddings");
  scheme("--head", flags.head, "Of the head (default: --embeddings)");
}

void add_calibration(CLI::App& app, QuantFlags& flags) {
  app.add_option(
      "--data", flags.data, "JSONL to calibrate on (needed by gptq)");
  app.add_option("--tokens", flags.tokens, "Tokens of it; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--seq-len", flags.seq_len, "Tokens of a sequence at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option(
         "--calibrate",
         flags.calibrate,
         "routed: an expert's statistics are of the tokens that chose it; all: "
         "of all tokens, by the router's probability")
      ->check(CLI::IsMember({"routed", "all"}))
      ->capture_default_str();
  app.add_flag(
      "--plain-gate",
      flags.plain_gate,
      "Count each token of an expert alike, not by its squared mixing weight");
  app.add_option(
         "--starved",
         flags.starved,
         "Experts with few tokens: mean draws their statistics toward the "
         "layer's, rtn rounds those without any to nearest")
      ->check(CLI::IsMember({"mean", "rtn"}))
      ->capture_default_str();
  app.add_option(
         "--moments",
         flags.moments,
         "Memory for statistics; with less, a layer is passed more often")
      ->capture_default_str();
}

}  // namespace

void add_quant_flags(CLI::App& app, QuantFlags& flags) {
  add_schemes(app, flags);
  app.add_option(
         "--method",
         flags.method,
         "rtn: round to nearest; gptq: make up for each rounding in the "
         "columns "
         "behind it (default where there is --data)")
      ->check(CLI::IsMember({"rtn", "gptq"}));
  app.add_option(
         "--group",
         flags.group,
         "Neighbouring weights of a row that share a scale; 0: the whole row")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option(
         "--zeros",
         flags.zeros,
         "Zero points: yes, no, or auto: of 2 and 3 bits")
      ->check(CLI::IsMember({"auto", "yes", "no"}))
      ->capture_default_str();
  app.add_option(
         "--damping",
         flags.damping,
         "gptq: added to the statistics' diagonal, as a share of its mean")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag(
      "--act-order",
      flags.act_order,
      "gptq: round columns by falling importance");
  app.add_option(
         "--entropy-weight",
         flags.entropy_weight,
         "ternary: what a bit of entropy a weight may cost in relative error; "
         "more makes ternary-coded smaller")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_calibration(app, flags);
}

void QuantFlags::check() const {
  if (method == "gptq" && data.empty()) {
    throw UsageError(
        "quant", "--method gptq", "needs --data to calibrate on, or use rtn");
  }
}

quant::Schemes QuantFlags::schemes() const {
  using quant::Part;
  const auto of = [](const std::string& name, const std::string& fallback) {
    return quant::parse_scheme(name.empty() ? fallback : name);
  };
  return {
      {Part::kExperts, of(bits, bits)},
      {Part::kDown, of(down, bits)},
      {Part::kShared, of(shared, bits)},
      {Part::kDense, of(dense, bits)},
      {Part::kAttention, of(attention, bits)},
      {Part::kEmbeddings, of(embeddings, bits)},
      {Part::kHead, of(head, embeddings)}};
}

quant::GptqOptions QuantFlags::gptq() const {
  quant::GptqOptions options;
  const bool use_gptq = method.empty() ? !data.empty() : method == "gptq";
  options.method = use_gptq ? quant::Method::kGptq : quant::Method::kRtn;
  options.grid.group = group;
  if (zeros != "auto") options.grid.symmetric = zeros == "no";
  options.grid.entropy_weight = entropy_weight;
  options.damping = damping;
  options.act_order = act_order;
  options.starved =
      starved == "mean" ? quant::Starved::kMean : quant::Starved::kRtn;
  options.hessians.calibration = calibrate == "all"
                                     ? quant::Calibration::kAll
                                     : quant::Calibration::kRouted;
  options.hessians.gate_weighted = !plain_gate;
  return options;
}

}  // namespace fettle::cli
