// SPDX-License-Identifier: Apache-2.0
#include "cli/fit/recipe.h"

#include <yaml-cpp/yaml.h>

namespace fettle::cli {
namespace {

class RecipeText {
 public:
  explicit RecipeText(const FitChain& chain)
      : chain_(chain), data_(chain.folder.data()) {}

  std::string text() {
    out_ << YAML::BeginMap;
    line("model", chain_.folder.model());
    line("out", (chain_.folder.path() / "run").string());
    add_data();
    line("seed", chain_.seed);
    if (data_.seq_len > 0) line("seq_len", data_.seq_len);
    out_ << YAML::Key << "stages" << YAML::Value << YAML::BeginSeq;
    add_stages();
    out_ << YAML::EndSeq << YAML::EndMap;
    return std::string(out_.c_str()) + "\n";
  }

 private:
  template <typename Value>
  void line(const char* key, const Value& value) {
    out_ << YAML::Key << key << YAML::Value << value;
  }

  void add_data() {
    out_ << YAML::Key << "data" << YAML::Value << YAML::BeginMap;
    line("calibration", data_.files);
    if (chain_.tunes) line("train", data_.files);
    if (!chain_.held.empty()) line("eval", chain_.held);
    if (!data_.flags.columns.empty()) line("columns", data_.flags.columns);
    if (!data_.flags.form.empty()) line("form", data_.flags.form);
    out_ << YAML::EndMap;
  }

  void begin(const char* stage) {
    out_ << YAML::BeginMap << YAML::Key << stage << YAML::Value
         << YAML::BeginMap;
  }
  void end() { out_ << YAML::EndMap << YAML::EndMap; }

  void add_planned(const char* stage) {
    begin(stage);
    const std::string plan = std::string(stage) + "_plan.json";
    line("plan", (chain_.folder.path() / plan).string());
    line("tokens", data_.tokens);
    if (data_.seq_len > 0) line("seq_len", data_.seq_len);
  }

  void add_stages() {
    add_planned("trim");
    end();
    if (chain_.tunes) {
      begin("tune");
      line("teacher", chain_.folder.model());
      if (chain_.tune_steps > 0) line("steps", chain_.tune_steps);
      if (data_.seq_len > 0) line("seq_len", data_.seq_len);
      end();
    }
    if (chain_.rounds) {
      add_planned("quant");
      if (chain_.group > 0) line("group", chain_.group);
      end();
    }
    if (!chain_.held.empty()) {
      begin("eval");
      line("against", "original");
      end();
    }
    if (chain_.engine.target == exporter::Target::kFettle) return;
    begin("export");
    line(
        "format",
        std::string(exporter::format_name(
            exporter::format_for(chain_.engine.target, chain_.rounds))));
    end();
  }

  const FitChain& chain_;
  const FitData& data_;
  YAML::Emitter out_;
};

}  // namespace

std::string fit_recipe(const FitChain& chain) {
  return RecipeText(chain).text();
}

}  // namespace fettle::cli
