// SPDX-License-Identifier: Apache-2.0
#include "cli/quant_flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>

#include "cli/session.h"
#include "core/error.h"
#include "core/size_option.h"

namespace fettle::cli {
namespace {

// The number that `text` is, or none.
std::optional<double> number_of(const std::string& text) {
  if (text.empty()) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end != text.c_str() + text.size()) return std::nullopt;
  return value;
}

// "4" is int4, as people say; averages have a point.
std::string scheme_text(const std::string& text) {
  return text == "2" || text == "3" || text == "4" || text == "8" ? "int" + text
                                                                  : text;
}

std::string check_bits(const std::string& text) {
  if (CLI::IsMember(quant::scheme_names())(text).empty()) return {};
  const auto number = number_of(text);
  const bool whole = text.find_first_not_of("0123456789") == text.npos;
  if (number && !whole && *number > 0 && *number <= 64) return {};
  return fmt::format(
      "expected a scheme ({}; 2, 3, 4 and 8 for int2 to int8) or an average of "
      "bits such as 2.5 or 4.0, found {}",
      fmt::join(quant::scheme_names(), ", "),
      text);
}

void add_schemes(CLI::App& app, QuantFlags& flags) {
  const auto scheme =
      [&](const char* name, std::string& into, const char* help) {
        auto* option = app.add_option(name, into, help)
                           ->transform(scheme_text)
                           ->check(CLI::IsMember(quant::scheme_names()));
        if (!into.empty()) option->capture_default_str();
      };
  app.add_option(
         "--bits",
         flags.bits,
         "Scheme of the experts (default: int4; 2, 3, 4 and 8 are int2 to "
         "int8), or the bits that a weight of theirs may take on average, "
         "written with a point: 2.5, 4.0")
      ->transform(scheme_text)
      ->check(check_bits);
  app.add_option(
         "--average-bits",
         flags.average_bits,
         "Bits that a weight of the experts may take on average, scales "
         "included, shared out so that least is lost; as --bits 4.25")
      ->check(CLI::Range(0.1, 64.0));
  app.add_option(
         "--for",
         flags.target,
         "Who will run the model: fettle; gguf (llama.cpp), or hf "
         "(transformers) or vllm by compressed-tensors. What they can't hold "
         "is refused before any work; --budget counts in their format")
      ->check(CLI::IsMember(exporter::target_names()))
      ->capture_default_str();
  scheme("--down", flags.down, "Of their down projections (default: --bits)");
  scheme("--attention", flags.attention, "Of the attention's projections");
  scheme("--shared", flags.shared, "Of shared experts");
  scheme("--dense", flags.dense, "Of dense layers' MLPs");
  scheme("--embeddings", flags.embeddings, "Of the embeddings");
  scheme("--head", flags.head, "Of the head (default: --embeddings)");
}

void add_allocation(CLI::App& app, QuantFlags& flags) {
  app.add_option(
      "--budget",
      flags.budget,
      "Bytes that the whole model may take, such as 6GiB, shared out so that "
      "least is lost");
  app.add_option(
         "--candidates",
         flags.candidates,
         "Schemes to choose from where bits are shared out")
      ->delimiter(',')
      ->transform(scheme_text)
      ->check(CLI::IsMember(quant::scheme_names()))
      ->capture_default_str();
  app.add_option(
         "--allocate", flags.allocate, "Parts whose bits are shared out")
      ->delimiter(',')
      ->check(CLI::IsMember(
          {"experts", "shared", "dense", "attention", "embeddings", "head"}))
      ->capture_default_str();
  app.add_option(
      "--errors",
      flags.errors,
      "quant_errors.json of an earlier run with the same data and options: "
      "nothing is measured again");
  app.add_option(
      "--prices",
      flags.prices,
      "Folder of an analysis with --prices: errors count by the KL that they "
      "are expected to cost, so that embeddings and head may share too");
  app.add_option(
      "--plan", flags.plan, "quant_plan.json to carry out, of this model");
  app.add_flag(
      "--plan-only",
      flags.plan_only,
      "Write quant_plan.json and quant_errors.json and no weights");
}

void add_calibration(CLI::App& app, QuantFlags& flags) {
  app.add_option(
      "--data",
      flags.data,
      fmt::format("To calibrate on (needed by gptq). {}", kDataHelp));
  add_data_flags(app, flags.data_flags);
  app.add_option("--tokens", flags.tokens, "Tokens of it; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--seq-len", flags.seq_len, kWindowHelp)
      ->check(CLI::PositiveNumber);
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
      "--eval-data",
      flags.eval_data,
      "Held-out JSONL files: adds loss, KL and top-1 before and after");
  app.add_option(
      "--moments",
      flags.moments,
      "Memory for statistics; with less, a layer is passed more often "
      "(2GiB, or what --ram has room for)");
}

}  // namespace

void add_quant_flags(CLI::App& app, QuantFlags& flags) {
  add_schemes(app, flags);
  add_allocation(app, flags);
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
         "Neighbouring weights of a row that share a scale; 0: the whole row "
         "(default: 128; with --for gguf 32, with hf and vllm what divides the "
         "hidden size)")
      ->check(CLI::NonNegativeNumber);
  app.add_option(
         "--zeros",
         flags.zeros,
         "Zero points: yes, no, or auto: of 2 and 3 bits where codes are not "
         "refined")
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
         "--refine",
         flags.refine,
         "gptq: passes that better its codes and scales, one after the other")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  app.add_option(
         "--entropy-weight",
         flags.entropy_weight,
         "ternary: what a bit of entropy a weight may cost in relative error; "
         "more makes ternary-coded smaller")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_calibration(app, flags);
}

std::optional<double> QuantFlags::mean_bits() const {
  return average_bits ? average_bits : number_of(bits);
}

exporter::Target QuantFlags::target_kind() const {
  return exporter::parse_target(target);
}

std::vector<quant::Scheme> QuantFlags::candidate_schemes() const {
  std::vector<quant::Scheme> schemes;
  for (const std::string& name : candidates) {
    schemes.push_back(quant::parse_scheme(name));
  }
  return schemes;
}

void QuantFlags::check() const {
  const auto refuse = [](const char* option, const char* why) {
    throw UsageError("quant", option, why);
  };
  if (method == "gptq" && data.empty()) {
    refuse("--method gptq", "needs --data to calibrate on, or use rtn");
  }
  if (average_bits && (!bits.empty() || !budget.empty())) {
    refuse(
        "--average-bits",
        "says how many bits there are; leave --bits and --budget out");
  }
  if (!budget.empty() && !bits.empty()) {
    refuse("--budget", "says how many bits there are; leave --bits out");
  }
  if (mean_bits() && exporter::wants_uniform(target_kind())) {
    refuse(
        "--average-bits",
        "counts in Fettle's own format; with --for another program give "
        "--budget, which counts in theirs");
  }
  if ((plan_only || !errors.empty()) &&
      exporter::wants_uniform(target_kind())) {
    refuse(
        plan_only ? "--plan-only" : "--errors",
        "has nothing to share out with --for another program, whose experts "
        "have one scheme; leave it out");
  }
  if (plan_only && !eval_data.empty()) {
    refuse("--eval-data", "needs a model: leave --plan-only out");
  }
  if (!plan.empty() && (!budget.empty() || !bits.empty() || average_bits)) {
    refuse(
        "--plan", "says what each weight gets; leave --bits and --budget out");
  }
  if (plan_only && !allocates()) {
    refuse("--plan-only", "goes with --budget or --average-bits");
  }
  if (!errors.empty() && !allocates()) {
    refuse("--errors", "goes with --budget or --average-bits");
  }
  const auto shares = [&](const char* part) {
    return std::ranges::find(allocate, part) != allocate.end();
  };
  if (prices.empty() && (shares("embeddings") || shares("head"))) {
    refuse(
        "--allocate",
        "shares bits with embeddings and head only by --prices, since their "
        "errors are of another kind");
  }
  if (!moments.empty()) parse_size(moments, "--moments");
  if (!budget.empty()) parse_size(budget, "--budget");
}

quant::Schemes QuantFlags::schemes() const {
  using quant::Part;
  const std::string experts = bits.empty() || mean_bits() ? "int4" : bits;
  const auto of = [](const std::string& name, const std::string& fallback) {
    return quant::parse_scheme(name.empty() ? fallback : name);
  };
  return {
      {Part::kExperts, of(experts, experts)},
      {Part::kDown, of(down, experts)},
      {Part::kShared, of(shared, experts)},
      {Part::kDense, of(dense, experts)},
      {Part::kAttention, of(attention, experts)},
      {Part::kEmbeddings, of(embeddings, experts)},
      {Part::kHead, of(head, embeddings)}};
}

std::vector<quant::Part> QuantFlags::allocated_parts() const {
  using quant::Part;
  std::vector<Part> parts;
  const auto add = [&](const char* name, Part part) {
    if (std::ranges::find(allocate, name) != allocate.end()) {
      parts.push_back(part);
    }
  };
  add("experts", Part::kExperts);
  if (down.empty()) add("experts", Part::kDown);
  add("shared", Part::kShared);
  add("dense", Part::kDense);
  add("attention", Part::kAttention);
  add("embeddings", Part::kEmbeddings);
  add("head", Part::kHead);
  return parts;
}

quant::GptqOptions QuantFlags::gptq() const {
  quant::GptqOptions options;
  const bool use_gptq = method.empty() ? !data.empty() : method == "gptq";
  options.method = use_gptq ? quant::Method::kGptq : quant::Method::kRtn;
  options.grid.group = group.value_or(128);
  if (zeros != "auto") options.grid.symmetric = zeros == "no";
  // Where experts' codes have no zero points.
  const exporter::Target runs = target_kind();
  if (zeros == "auto" &&
      (runs == exporter::Target::kHf || runs == exporter::Target::kVllm)) {
    options.grid.symmetric = true;
  }
  options.grid.entropy_weight = entropy_weight;
  options.damping = damping;
  options.refine = refine;
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
