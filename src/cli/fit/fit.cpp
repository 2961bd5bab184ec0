// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "chain/engine.h"
#include "chain/fit_page.h"
#include "chain/fit_source.h"
#include "chain/fit_table.h"
#include "cli/command.h"
#include "cli/fit/best.h"
#include "cli/fit/text.h"
#include "cli/inputs.h"
#include "cli/model_option.h"
#include "cli/session.h"
#include "cli/targets.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/size_option.h"
#include "kernels/device_backend.h"
#include "tune/run_plan.h"

namespace fettle::cli {
namespace {

struct SizeOption {
  const char* name;
  std::string text = {};

  std::optional<std::int64_t> bytes() const {
    if (text.empty()) return std::nullopt;
    return parse_size(text, name);
  }
};

class Fit : public Command {
 public:
  void add_options(CLI::App& app) override {
    add_model_option(app, model_)->required();
    const auto add_size = [&](SizeOption& size, const char* help) {
      app.add_option(size.name, size.text, help);
    };
    add_size(vram_, "Memory of the card that will run the model: 12GiB");
    add_size(ram_, "Memory of that machine; without --vram, its CPU computes");
    add_size(disk_, "Bytes that the finished folder may take");
    add_size(budget_, "Bytes that its weights alone may take");
    app.add_option(
           "--for",
           purpose_,
           "inference: what runs the model takes; tune: what each method of "
           "tuning takes, and a step's time")
        ->check(CLI::IsMember({"inference", "tune"}))
        ->capture_default_str();
    app.add_option("--engine", request_.engine, "Program that will run it")
        ->check(CLI::IsMember(chain::engine_names()))
        ->capture_default_str();
    app.add_option(
           "--context",
           request_.context,
           "Tokens of a conversation, prompt and answer (8192, or the model's "
           "positions where those are fewer)")
        ->check(CLI::PositiveNumber);
    app.add_option("--parallel", request_.parallel, "Conversations at one time")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    keep_min_option_ =
        app.add_option(
               "--keep-min",
               request_.keep_min,
               "Least share of the experts' neurons to look at; with --data "
               "it bounds the plan where it is given")
            ->check(CLI::Range(0.01, 1.0))
            ->capture_default_str();
    app.add_option(
        "--bits-min",
        request_.bits_min,
        "Least scheme of the experts to look at, such as int3");
    report_option_ = app.add_option(
        "--report",
        report_,
        "Write the table, or with --data the plan, as a page with charts");
    add_best_flags(app, best_);
  }

  void check(const Foreseen*) const override {
    bounds();
    check_report();
    check_best();
  }

  Outcome run(Session& session) override {
    request_.bounds = bounds();
    bound_by_card(session);
    const chain::FitSource source(model_);
    if (purpose_ == "tune") request_.purpose = chain::Purpose::kTune;
    request_ = chain::settled(request_, source);
    if (request_.purpose == chain::Purpose::kTune) {
      return tune_outcome(source, session);
    }
    if (!best_.data.empty()) return best_outcome(session, source);
    const chain::FitTable table = chain::fit_table(source, request_);
    Outcome outcome;
    outcome.json = table.to_json();
    outcome.json["model"] = source.name();
    outcome.json["exact"] = source.exact();
    outcome.json["assumed"] = source.assumed();
    outcome.text = fit_text(source, table, {model_, report_});
    if (!report_.empty()) {
      chain::write_fit_page(report_, {source, table, session.making()});
    }
    return outcome;
  }

 private:
  void check_report() const {
    if (report_option_->count() == 0) return;
    if (purpose_ == "tune") {
      throw UsageError(
          "fit", "--report", "has no page of what tuning takes; leave it out");
    }
    check_new_file({"--report", report_});
  }

  void check_best() const {
    best_.check();
    check_data("--data", best_.data);
    check_data("--held", best_.held);
    if (best_.data.empty()) return;
    if (purpose_ != "inference") {
      throw UsageError(
          "fit",
          "--data",
          "plans for --for inference; leave it out for the table of tuning");
    }
    if (!bounds().any()) {
      throw UsageError(
          "fit", "--data", "needs a bound: --budget, --vram, --ram or --disk");
    }
  }

  Outcome best_outcome(Session& session, const chain::FitSource& source) const {
    BestRequest request{best_, source, request_, model_, report_};
    if (keep_min_option_->count() > 0) request.keep_min = request_.keep_min;
    return best_fit(session, request);
  }

  Outcome tune_outcome(
      const chain::FitSource& source, const Session& session) const {
    const std::filesystem::path file =
        source.reader() != nullptr ? tune::largest_shard(*source.reader())
                                   : std::filesystem::path();
    const at::Device device = session.device();
    // A card that is not here is not this machine's CPU.
    const bool here = request_.on_card() != device.is_cpu();
    const at::ScalarType type = device.is_cpu() ? at::kFloat : at::kBFloat16;
    const chain::TuneTable table = chain::tune_table(
        source,
        request_,
        here ? chain::measure_rates(device, type, file)
             : chain::assumed_rates(file));
    Outcome outcome;
    outcome.json = table.to_json();
    outcome.json["model"] = source.name();
    outcome.json["exact"] = source.exact();
    outcome.json["assumed"] = source.assumed();
    outcome.text = fit_tune_text(source, request_, table);
    return outcome;
  }

  chain::Bounds bounds() const {
    return {vram_.bytes(), ram_.bytes(), disk_.bytes(), budget_.bytes()};
  }

  // A card that is here tells what is free on it.
  void bound_by_card(Session& session) {
    if (session.device().is_cpu()) return;
    // The driver's share of this process ends with it.
    const std::int64_t left =
        kernels::free_device_memory(session.device()) +
        chain::find_engine(request_.engine).work.card_bytes;
    std::optional<std::int64_t>& asked = request_.bounds.vram;
    if (asked && *asked > left) {
      throw UserError(
          "fit",
          "--vram",
          fmt::format(
              "expected at most the {} that are free on {}, found {}",
              format_bytes(left),
              session.options().device,
              format_bytes(*asked)));
    }
    if (!asked) asked = left;
  }

  SizeOption vram_{"--vram"}, ram_{"--ram"}, disk_{"--disk"},
      budget_{"--budget"};
  const CLI::Option* report_option_ = nullptr;
  const CLI::Option* keep_min_option_ = nullptr;
  std::string model_, report_;
  std::string purpose_ = "inference";
  chain::FitRequest request_;
  BestFlags best_;
};

}  // namespace

std::unique_ptr<Command> make_fit() { return std::make_unique<Fit>(); }

}  // namespace fettle::cli
