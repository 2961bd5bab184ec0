// SPDX-License-Identifier: Apache-2.0
#include "cli/fit_best.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>

#include "chain/frontier.h"
#include "chain/plain.h"
#include "cli/chain.h"
#include "cli/inputs.h"
#include "cli/parsed_command.h"
#include "cli/recipe.h"
#include "cli/run_record.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/table.h"
#include "core/bytes.h"
#include "core/error.h"
#include "io/checksum.h"
#include "io/durable.h"
#include "io/file.h"

namespace fettle::cli {
namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;

constexpr int kFrontierPoints = 12;

void append(Arguments& to, const Arguments& more) {
  to.insert(to.end(), more.begin(), more.end());
}

Json plan_json(const chain::FitPlan& plan) {
  return {
      {"bytes", plan.bytes},
      {"nats", plan.nats()},
      {"cut_nats", plan.cut_nats},
      {"round_nats", plan.round_nats},
      {"products", plan.products}};
}

class Best {
 public:
  Best(Session& session, const BestRequest& request)
      : session_(session),
        request_(request),
        flags_(request.flags),
        out_(flags_.out) {}

  Outcome run() {
    make_folder();
    if (!step("scores", "analyze", analysis(), {})) return stopped();
    if (!step("errors", "quant", measuring(), {"scores"})) return stopped();
    plan();
    write_plan();
    write_recipe();
    if (flags_.plan_only) return outcome();
    if (!carry_out()) return stopped();
    return outcome();
  }

 private:
  void make_folder() const {
    std::error_code error;
    fs::create_directories(out_, error);
    if (!error) return;
    throw UserError("fit", out_.string(), "cannot be made: " + error.message());
  }

  // How data is read, by both.
  Arguments data() const {
    Arguments result{"--data"};
    append(result, flags_.data);
    result.push_back(fmt::format("--tokens={}", flags_.tokens));
    if (flags_.seq_len > 0) {
      result.push_back(fmt::format("--seq-len={}", flags_.seq_len));
    }
    if (!flags_.data_flags.columns.empty()) {
      result.push_back("--columns=" + flags_.data_flags.columns);
    }
    if (!flags_.data_flags.form.empty()) {
      result.push_back("--form=" + flags_.data_flags.form);
    }
    return result;
  }

  Arguments analysis() const {
    Arguments result{request_.model, "--prices"};
    append(result, data());
    return result;
  }

  // The budget of a measurement bounds nothing.
  Arguments measuring() const {
    Arguments result{
        request_.model,
        "--plan-only",
        "--budget=1024TiB",
        "--prices=" + (out_ / "scores").string(),
        fmt::format("--candidates={}", fmt::join(request_.schemes, ",")),
        "--allocate=experts,shared,dense,attention,embeddings,head"};
    append(result, data());
    return result;
  }

  // Runs a command into a folder of --out, unless that is there from the same
  // inputs. False where it was stopped.
  bool step(
      const std::string& name,
      const std::string& command,
      Arguments arguments,
      const Arguments& needs) {
    io::Hasher hasher;
    hasher.update(model_key(request_.model));
    for (const std::string& argument : arguments)
      hasher.update(argument + "\n");
    for (const auto& file : data_files(flags_.data)) {
      hasher.update(io::hash_file(file.path));
    }
    hasher.update(fmt::format("{}\n", session_.seed()));
    for (const std::string& need : needs) hasher.update(key_of(need));
    const std::string key = hasher.digest();
    const fs::path folder = out_ / name;
    if (key_of(name) == key && fs::exists(folder)) return true;
    const fs::path begun = out_ / (name + ".begun");
    const bool resumes =
        fs::exists(begun) && read_json(begun, "fit").at("key") == key;
    if (!resumes) fs::remove_all(folder);
    io::replace_file(begun, Json{{"key", key}}.dump() + "\n");
    arguments.push_back(resumes ? "--resume" : "--restart");
    append(arguments, {"--out", folder.string()});
    session_.reporter().note("fit: " + command);
    if (ParsedCommand(command, arguments).run(session_).stopped) return false;
    io::replace_file(out_ / (name + ".done"), Json{{"key", key}}.dump() + "\n");
    fs::remove(begun);
    return true;
  }

  std::string key_of(const std::string& name) const {
    const fs::path file = out_ / (name + ".done");
    if (!fs::exists(file)) return {};
    return read_json(file, "fit").value("key", std::string());
  }

  void plan() {
    reader_ = session_.read(request_.model);
    scores_ = artifact::ScoreFile::load(out_ / "scores");
    const auto prices = artifact::RowPrices::load(
        out_ / "scores", reader_->config(), reader_->fingerprint());
    const fs::path file = out_ / "errors" / "quant_errors.json";
    const Json json = read_json(file, "fit");
    const auto errors = quant::QuantErrors::from_json(
        json, reader_->config(), json.at("identity"), file.string());
    quant::GridOptions grid;
    grid.symmetric = true;  // as codes are refined
    table_ = chain::price_table({*reader_, scores_, prices, errors, grid});
    if (flags_.objective == "memory") {
      chosen_ = chain::Search(*reader_, table_, request_.rules)
                    .within(request_.budget);
    } else {
      chain::SpeedPrice price;
      if (flags_.objective == "both") price = {price.nats / 2, price.share / 2};
      chosen_ = chain::fastest(
          *reader_, table_, request_.rules, request_.budget, price);
    }
    frontier_ =
        chain::frontier(*reader_, table_, request_.rules, kFrontierPoints);
    for (const auto& choice : chain::plain_grid(table_)) {
      const auto plain = chain::plain_plan(*reader_, table_, scores_, choice);
      if (plain) plain_.emplace_back(choice, *plain);
    }
  }

  void write_plan() {
    chain::trim_plan(*reader_, table_, chosen_).save(out_ / "trim_plan.json");
    chain::quant_plan(*reader_, table_, chosen_).save(out_ / "quant_plan.json");
    json_["budget"] = request_.budget;
    json_["chosen"] = plan_json(chosen_);
    json_["frontier"] = Json::array();
    for (const chain::FitPlan& plan : frontier_) {
      json_["frontier"].push_back(plan_json(plan));
    }
    json_["plain"] = Json::array();
    for (const auto& [choice, plan] : plain_) {
      Json row = plan_json(plan);
      row["name"] = choice.name();
      row["keep"] = choice.keep;
      row["scheme"] = quant::scheme_name(choice.scheme);
      json_["plain"].push_back(std::move(row));
    }
    io::replace_file(out_ / "fit.json", json_.dump(1) + "\n");
  }

  // The chain from the model to what the plan makes of it.
  void write_recipe() {
    YAML::Emitter out;
    out << YAML::BeginMap;
    const auto line = [&](const char* key, const auto& value) {
      out << YAML::Key << key << YAML::Value << value;
    };
    line("model", request_.model);
    line("out", (out_ / "run").string());
    out << YAML::Key << "data" << YAML::Value << YAML::BeginMap;
    line("calibration", flags_.data);
    if (!flags_.held.empty()) line("eval", flags_.held);
    if (!flags_.data_flags.columns.empty()) {
      line("columns", flags_.data_flags.columns);
    }
    if (!flags_.data_flags.form.empty()) line("form", flags_.data_flags.form);
    out << YAML::EndMap;
    line("seed", session_.seed());
    if (flags_.seq_len > 0) line("seq_len", flags_.seq_len);
    out << YAML::Key << "stages" << YAML::Value << YAML::BeginSeq;
    for (const char* stage : {"trim", "quant"}) {
      out << YAML::BeginMap << YAML::Key << stage << YAML::Value
          << YAML::BeginMap;
      const std::string plan = std::string(stage) + "_plan.json";
      line("plan", (out_ / plan).string());
      line("tokens", flags_.tokens);
      if (flags_.seq_len > 0) line("seq_len", flags_.seq_len);
      out << YAML::EndMap << YAML::EndMap;
    }
    if (!flags_.held.empty()) {
      out << YAML::BeginMap << YAML::Key << "eval" << YAML::Value
          << YAML::BeginMap;
      line("against", "original");
      out << YAML::EndMap << YAML::EndMap;
    }
    out << YAML::EndSeq << YAML::EndMap;
    const std::string text = std::string(out.c_str()) + "\n";
    io::replace_file(recipe_file(), text);
    if (!flags_.recipe.empty()) io::write_file(flags_.recipe, text);
  }

  fs::path recipe_file() const { return out_ / "recipe.yaml"; }

  // False where it was stopped.
  bool carry_out() {
    const Arguments arguments{recipe_file().string(), "--resume"};
    Outcome made = ParsedCommand("run", arguments).run(session_);
    if (made.stopped) return false;
    json_["stages"] = made.json.at("stages");
    const Recipe recipe = read_recipe(recipe_file());
    const RunRecord record(recipe.out);
    for (const ChainStep& step : chain_of(recipe)) {
      if (step.makes_model) json_["model"] = step.out.string();
      if (step.command == "eval") json_["measured"] = record.result(step);
    }
    io::replace_file(out_ / "fit.json", json_.dump(1) + "\n");
    return true;
  }

  // Predicted beside measured, by domain; empty before the model is made.
  std::string measured_text() const {
    if (!json_.contains("measured")) return {};
    const Json& files = json_["measured"].at("files");
    Table table({"held-out file", "measured KL", "expected KL"});
    double sum = 0;
    for (const Json& file : files) {
      const double kl = file.at("kl").get<double>();
      sum += kl;
      table.add(
          {file.at("file").get<std::string>(), fmt::format("{:.4f}", kl), ""});
    }
    table.add(
        {"mean",
         fmt::format("{:.4f}", sum / static_cast<double>(files.size())),
         fmt::format("{:.4f}", chosen_.nats())});
    return "\n" + table.text();
  }

  Outcome stopped() const {
    return {
        .json = json_,
        .text = "stopped; the same command goes on\n",
        .stopped = true};
  }

  static void add_row(
      Table& table, const std::string& name, const chain::FitPlan& plan) {
    table.add(
        {name,
         format_bytes(plan.bytes),
         fmt::format("{:.4f}", plan.nats()),
         fmt::format("{:.4f}", plan.cut_nats),
         fmt::format("{:.4f}", plan.round_nats),
         fmt::format("{:.0f} %", 100 * plan.products)});
  }

  Outcome outcome() const {
    Table table(
        {"plan",
         "weights",
         "expected KL",
         "by cuts",
         "by rounding",
         "products"});
    add_row(table, "chosen", chosen_);
    for (const chain::FitPlan& plan : frontier_) {
      add_row(table, "frontier", plan);
    }
    for (const auto& [choice, plan] : plain_) {
      if (plan.bytes <= request_.budget) add_row(table, choice.name(), plan);
    }
    Outcome result;
    result.json = json_;
    result.text = table.text() + measured_text();
    const bool made = json_.contains("model");
    result.text += closing_text(
        {.next = made ? Arguments{"fettle",
                                  "generate",
                                  json_["model"].get<std::string>(),
                                  "--prompt",
                                  "TEXT"}
                      : Arguments{"fettle", "run", recipe_file().string()}});
    return result;
  }

  Session& session_;
  const BestRequest& request_;
  const BestFlags& flags_;
  fs::path out_;
  std::unique_ptr<model::ModelReader> reader_;
  artifact::ScoreFile scores_;
  chain::PriceTable table_;
  chain::FitPlan chosen_;
  std::vector<chain::FitPlan> frontier_;
  std::vector<std::pair<chain::PlainChoice, chain::FitPlan>> plain_;
  Json json_ = Json::object();
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
      "--out", flags.out, "Folder for the plan, the work and the model");
  app.add_flag("--plan-only", flags.plan_only, "Plan, and write no model");
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
