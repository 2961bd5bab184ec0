// SPDX-License-Identifier: Apache-2.0
#include "tune/adapter/merge.h"
#include "cli/model_option.h"

#include "cli/command.h"
#include "cli/inputs.h"
#include "cli/merge_text.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/targets.h"

namespace fettle::cli {
namespace {

class Merge : public Command {
 public:
  void add_options(CLI::App& app) override {
    add_model_option(app, model_)
        ->required()
        ->description("Folder of the adapter's base");
    app.add_option("--adapter", adapter_, "Folder that tune wrote")->required();
    app.add_option("--out", out_, "Folder for the merged model")->required();
    app.add_flag(
        "--keep-dtype",
        options_.keep_dtype,
        "Round changed tensors to the base's type instead of fp32");
  }

  void check(const Foreseen* foreseen) const override {
    if (foreseen != nullptr) return;
    check_folder("--adapter", adapter_);
    check_new_folder({"--out", out_});
  }

  Outcome run(Session& session) override {
    const auto opened = session.read(model_);
    const model::ModelReader& reader = *opened;
    session.require_ram(reader, 4);
    const auto report = tune::merge_adapter(
        reader, adapter_, options_, out_, session.reporter());
    Outcome outcome;
    outcome.json = report.to_json();
    outcome.json["out"] = out_;
    outcome.text = merge_table(report);
    outcome.text += closing_text(
        {.next = {
             "fettle",
             "export",
             out_,
             "--format",
             "hf-padded",
             "--out",
             "export"}});
    return outcome;
  }

 private:
  std::string model_, adapter_, out_;
  tune::MergeOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_merge() { return std::make_unique<Merge>(); }

}  // namespace fettle::cli
