// SPDX-License-Identifier: Apache-2.0
#include "cli/fit/best.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <utility>

#include "chain/engine_needs.h"
#include "chain/plan_page.h"
#include "chain/weights_room.h"
#include "cli/chain.h"
#include "cli/fit/engine.h"
#include "cli/fit/folder.h"
#include "cli/fit/peak.h"
#include "cli/fit/recipe.h"
#include "cli/fit/result.h"
#include "cli/fit/texts.h"
#include "cli/inputs.h"
#include "cli/parsed_command.h"
#include "cli/recipe.h"
#include "cli/run_record.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "core/error.h"
#include "io/durable.h"
#include "io/file.h"

namespace fettle::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kFrontierPoints = 12;

class Best {
 public:
  Best(Session& session, const BestRequest& request)
      : session_(session),
        request_(request),
        flags_(request.flags),
        engine_(chain::find_engine(request.fit.engine)),
        reader_(session.read(request.model)),
        needs_(
            chain::needs_of(engine_, reader_->config(), request.fit.bits_min)),
        data_{flags_.data, flags_.data_flags, flags_.tokens, flags_.seq_len} {
    const chain::Bounds& bounds = request.fit.bounds;
    // Rounding saves nothing in memory where weights are unpacked.
    if (engine_.unpacks && !bounds.weights && !bounds.disk) {
      needs_.schemes = {"keep"};
    }
    result_.budget = chain::weights_room(request.source, request.fit);
    require_least(*reader_, needs_, result_.budget);
    for (const auto& files : {flags_.data, flags_.held}) {
      require_tokens(
          session, *reader_, {files, flags_.data_flags, flags_.seq_len});
    }
    folder_ =
        std::make_unique<FitFolder>(session, flags_.out, request.model, data_);
  }

  Outcome run() {
    if (!folder_->run({"scores", "analyze", analysis()})) return stopped();
    if (!folder_->run({"errors", "quant", measuring(), {"scores"}})) {
      return stopped();
    }
    load_prices();
    if (!calibrate()) return stopped();
    plan();
    write_plan();
    if (!flags_.plan_only && !carry_out()) return stopped();
    write_report();
    return outcome();
  }

 private:
  Arguments analysis() const {
    Arguments result{request_.model, "--prices"};
    append(result, data_.arguments());
    return result;
  }

  Arguments quant_options() const {
    if (needs_.group == 0) return {};
    return {fmt::format("--group={}", needs_.group)};
  }

  // The budget of a measurement bounds nothing.
  Arguments measuring() const {
    Arguments result{
        request_.model,
        "--plan-only",
        "--budget=1024TiB",
        "--prices=" + (fs::path(flags_.out) / "scores").string(),
        fmt::format("--candidates={}", fmt::join(needs_.schemes, ",")),
        fmt::format("--allocate={}", fmt::join(needs_.parts, ","))};
    append(result, quant_options());
    append(result, data_.arguments());
    return result;
  }

  void load_prices() {
    const fs::path& out = folder_->path();
    scores_ = artifact::ScoreFile::load(out / "scores");
    const auto prices = artifact::RowPrices::load(
        out / "scores", reader_->config(), reader_->fingerprint());
    const fs::path file = out / "errors" / "quant_errors.json";
    const Json json = read_json(file, "fit");
    const auto errors = quant::QuantErrors::from_json(
        json, reader_->config(), json.at("identity"), file.string());
    quant::GridOptions grid;
    grid.symmetric = true;  // as codes are refined
    if (needs_.group > 0) grid.group = needs_.group;
    table_ = chain::price_table({*reader_, scores_, prices, errors, grid});
  }

  // False where it was stopped.
  bool calibrate() {
    table_.calibration = chain::usual_calibration();
    if (flags_.calibrate == "measured") {
      auto probes = measure_probes(
          {session_,
           *folder_,
           *reader_,
           table_,
           scores_,
           flags_.held,
           quant_options()});
      if (!probes) return false;
      table_.calibration = probes->calibration(table_);
      for (MeasuredProbe& point : probes->points) {
        chain::price_plan(table_, point.plan);
      }
      result_.domains = probes->domains();
      result_.probes = std::move(*probes);
    }
    result_.calibration = table_.calibration;
    return true;
  }

  chain::FitPlan planned(std::int64_t budget) const {
    const chain::PlanSpace space = plan_space();
    if (flags_.objective == "memory") return chain::best_within(space, budget);
    chain::SpeedPrice price;
    if (flags_.objective == "both") price = {price.nats / 2, price.share / 2};
    return chain::fastest(space, budget, price);
  }

  chain::PlanSpace plan_space() const {
    return {*reader_, table_, needs_.rules, request_.keep_min};
  }

  void plan() {
    for (const auto& choice : chain::plain_grid(table_)) {
      const auto plain = chain::plain_plan(*reader_, table_, scores_, choice);
      if (plain) result_.plain.emplace_back(choice, *plain);
    }
    // Plain weights are wider in Fettle's memory than on disk.
    const auto& bounds = request_.fit.bounds;
    const bool own = engine_.storage == chain::Storage::kFettle;
    if (own && (bounds.vram || bounds.ram)) {
      chain::forbid(table_, quant::parse_scheme("keep"));
    }
    // What the format adds, and memory in all, are known of a plan alone.
    std::int64_t budget = result_.budget;
    for (;;) {
      result_.chosen = planned(budget);
      const std::int64_t searched = result_.chosen.bytes;
      result_.chosen.bytes = engine_bytes(input());
      result_.footprint = planned_footprint(input());
      const std::int64_t over = bytes_over();
      if (over <= 0) break;
      budget = std::min(budget, searched) - over;
    }
    result_.chosen =
        chain::as_chosen(std::move(result_.chosen), scores_.tokens);
    result_.chosen_cost = chain::chosen_cost(scores_.tokens);
    for (chain::FitPlan& best :
         chain::frontier(plan_space(), kFrontierPoints)) {
      result_.frontier.push_back(
          chain::as_chosen(std::move(best), scores_.tokens));
    }
  }

  // What the chosen plan takes beyond the tightest bound.
  std::int64_t bytes_over() const {
    std::int64_t over = result_.chosen.bytes - result_.budget;
    const auto& bounds = request_.fit.bounds;
    const auto has = request_.fit.on_card() ? bounds.vram : bounds.ram;
    if (!has) return over;
    // A byte less in the file is several less where packed weights are
    // unpacked.
    const double each = engine_.unpacks ? result_.footprint.widening() : 1;
    const auto beyond = static_cast<double>(result_.footprint.total - *has);
    return std::max(over, static_cast<std::int64_t>(std::ceil(beyond / each)));
  }

  PlannedFit input() const {
    return {
        *reader_,
        table_,
        result_.chosen,
        engine_,
        request_.source,
        request_.fit};
  }

  bool rounds() const {
    const auto is_packed = [](const quant::Scheme& s) { return !s.keep; };
    return std::ranges::any_of(result_.chosen.others, is_packed) ||
           std::ranges::any_of(result_.chosen.experts, [](const auto& choice) {
             return choice.width > 0 &&
                    (!choice.gate_up.keep || !choice.down.keep);
           });
  }

  void write_plan() {
    const fs::path& out = folder_->path();
    chain::trim_plan(*reader_, table_, result_.chosen)
        .save(out / "trim_plan.json");
    chain::quant_plan(*reader_, table_, result_.chosen)
        .save(out / "quant_plan.json");
    const std::string recipe = fit_recipe(
        {*folder_,
         engine_,
         flags_.held,
         session_.seed(),
         needs_.group,
         flags_.tune,
         rounds(),
         flags_.tune_steps});
    io::replace_file(recipe_file(), recipe);
    if (!flags_.recipe.empty()) io::write_file(flags_.recipe, recipe);
    save();
  }

  void save() const {
    io::replace_file(
        folder_->path() / "fit.json", result_.to_json().dump(1) + "\n");
  }

  fs::path recipe_file() const { return folder_->path() / "recipe.yaml"; }

  // False where it was stopped.
  bool carry_out() {
    const Arguments arguments{recipe_file().string(), "--resume"};
    Outcome made = ParsedCommand("run", arguments).run(session_);
    if (made.stopped) return false;
    result_.stages = made.json.at("stages");
    const Recipe recipe = read_recipe(recipe_file());
    const RunRecord record(recipe.out);
    for (const ChainStep& step : chain_of(recipe)) {
      if (step.command == "export") {
        result_.exported = step.out.string();
      } else if (step.makes_model) {
        result_.model = step.out.string();
      }
      if (step.command == "eval") result_.measured = record.result(step);
    }
    measure_memory();
    save();
    return true;
  }

  // Where the machine that runs the model is this one.
  void measure_memory() {
    const bool on_card = request_.fit.on_card();
    const bool bounded = on_card ? request_.fit.bounds.vram.has_value()
                                 : request_.fit.bounds.ram.has_value();
    const bool here = on_card != session_.device().is_cpu();
    const bool own = engine_.target == exporter::Target::kFettle;
    if (!bounded || !here || !own || result_.footprint.total == 0) return;
    result_.memory = measured_peak(
        session_,
        {.model = result_.model,
         .work = folder_->path(),
         .context = request_.fit.context,
         .bytes = result_.footprint.total,
         .on_card = on_card});
  }

  void write_report() const {
    chain::PlanPage page{
        .model = reader_->name(),
        .engine = engine_,
        .table = table_,
        .chosen = result_.chosen,
        .footprint = result_.footprint,
        .frontier = result_.frontier,
        .plain = result_.plain,
        .budget = result_.budget,
        .domains = result_.domains,
        .making = session_.making()};
    for (const MeasuredProbe& point : result_.probes.points) {
      page.probes.emplace_back(&point.plan, point.kl);
    }
    if (!result_.measured.is_null()) {
      for (const Json& file : result_.measured.at("files")) {
        page.measured.emplace_back(
            file.at("file").get<std::string>(), file.at("kl").get<double>());
      }
    }
    if (result_.memory.contains("measured_bytes")) {
      page.peak_bytes = result_.memory.at("measured_bytes").get<std::int64_t>();
    }
    chain::write_plan_page(folder_->path() / "report.html", page);
    if (!request_.report.empty()) chain::write_plan_page(request_.report, page);
  }

  Outcome stopped() const {
    return {
        .json = result_.to_json(),
        .text = "stopped; the same command goes on\n",
        .stopped = true};
  }

  Outcome outcome() const {
    Outcome outcome;
    outcome.json = result_.to_json();
    outcome.text = result_.text();
    outcome.text +=
        fmt::format("report: {}\n", (folder_->path() / "report.html").string());
    const bool made = !result_.model.empty();
    outcome.text += closing_text(
        {.next = made ? Arguments{"fettle",
                                  "generate",
                                  result_.model,
                                  "--prompt",
                                  "TEXT"}
                      : Arguments{"fettle", "run", recipe_file().string()}});
    return outcome;
  }

  Session& session_;
  const BestRequest& request_;
  const BestFlags& flags_;
  const chain::Engine& engine_;
  std::unique_ptr<model::ModelReader> reader_;
  chain::EngineNeeds needs_;
  FitData data_;
  std::unique_ptr<FitFolder> folder_;
  artifact::ScoreFile scores_;
  chain::PriceTable table_;
  FitResult result_;
};

}  // namespace

void BestFlags::check() const {
  if (data.empty()) return;
  if (out.empty()) {
    throw UsageError(
        "fit", "--data", "needs --out, the folder for the plan and the work");
  }
}

void add_best_flags(CLI::App& app, BestFlags& flags) {
  app.add_option(
      "--data",
      flags.data,
      fmt::format("To find the best plan by. {}", kDataHelp));
  add_data_flags(app, flags.data_flags);
  app.add_option("--tokens", flags.tokens, "Tokens of it; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--seq-len", flags.seq_len, kWindowHelp)
      ->check(CLI::PositiveNumber);
  app.add_option(
         "--objective",
         flags.objective,
         "memory: the least loss within the bytes; speed: fewer products a "
         "token for some more loss; both: half of that")
      ->check(CLI::IsMember({"memory", "speed", "both"}))
      ->capture_default_str();
  app.add_option(
         "--calibrate",
         flags.calibrate,
         "What expected losses rest on: measured, three points carried out on "
         "this model; usual, what held on another")
      ->check(CLI::IsMember({"measured", "usual"}))
      ->capture_default_str();
  app.add_option(
      "--out", flags.out, "Folder for the plan, the work and the model");
  app.add_flag("--plan-only", flags.plan_only, "Plan, and write no model");
  app.add_flag(
      "--tune",
      flags.tune,
      "Train what the cut left, with the model as it is as teacher");
  app.add_option("--tune-steps", flags.tune_steps, "Steps of that")
      ->check(CLI::PositiveNumber);
  app.add_option(
      "--held",
      flags.held,
      "Held-out data to measure the finished model on, against the original");
  app.add_option(
      "--recipe", flags.recipe, "Write the chain that was run to this file");
}

Outcome best_fit(Session& session, const BestRequest& request) {
  return Best(session, request).run();
}

}  // namespace fettle::cli
