// SPDX-License-Identifier: Apache-2.0
#include "cli/model_option.h"
#include "cli/mtp_option.h"
#include "tune/adapter/merge_adapter.h"

#include <fmt/format.h>

#include "cli/command.h"
#include "cli/inputs.h"
#include "cli/merge_text.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/targets.h"
#include "core/error.h"
#include "tune/adapter/peft_adapter.h"

namespace fettle::cli {
namespace {

class Merge : public Command {
 public:
  void add_options(CLI::App& app) override {
    add_model_option(app, model_)
        ->required()
        ->description("Folder of the adapter's base");
    app.add_option("--adapter", adapter_, "Folder that tune wrote")->required();
    out_option_ = app.add_option("--out", out_, "Folder for the merged model");
    peft_option_ = app.add_option(
        "--peft", peft_, "Folder for the pairs of lora, as PEFT loads them");
    app.add_option("--dtype", options_.dtype, merge_dtype_help())
        ->check(CLI::IsMember({"keep", "float32"}))
        ->capture_default_str();
    add_mtp_option(app, mtp_);
    app.add_flag(
        "--any-base",
        options_.any_base,
        "Take MODEL for the adapter's base though its weights are others");
  }

  void check(const Foreseen* foreseen) const override {
    if (foreseen != nullptr) return;
    check_folder("--adapter", adapter_);
    const bool merges = out_option_->count() > 0;
    const bool converts = peft_option_->count() > 0;
    if (!merges && !converts) {
      throw UsageError(
          "merge",
          "--out",
          "expected --out for a merged model, or --peft for a PEFT adapter, "
          "found neither");
    }
    if (merges) check_new_folder({"--out", out_});
    if (converts) check_new_folder({"--peft", peft_});
    check_new_folders({{"--peft", peft_}, {"--out", out_}});
  }

  Outcome run(Session& session) override {
    const auto opened = session.read(model_);
    const model::ModelReader& reader = *opened;
    session.require_ram(reader, 4);
    options_.mtp = artifact::parse_mtp(mtp_);
    Outcome outcome;
    if (!peft_.empty()) {
      const tune::AdapterLoadOptions insist{.any_base = options_.any_base};
      tune::check_peft_adapter(reader, adapter_, insist);
      tune::write_peft_adapter(reader, adapter_, peft_, insist);
      outcome.json["peft"] = peft_;
      outcome.text = fmt::format("{}: an adapter for PEFT\n", peft_);
    }
    if (!out_.empty()) {
      const auto report = tune::merge_adapter(
          reader, adapter_, options_, out_, session.reporter());
      outcome.json.update(report.to_json());
      outcome.json["out"] = out_;
      outcome.json["dtype"] = report.dtype;
      outcome.json["bytes"] = report.bytes;
      outcome.text += merge_table(report);
      outcome.text += closing_text(
          {.next = {
               "fettle",
               "export",
               out_,
               "--format",
               "hf-padded",
               "--out",
               "export"}});
    }
    return outcome;
  }

 private:
  std::string model_, adapter_, out_, peft_, mtp_;
  CLI::Option* out_option_ = nullptr;
  CLI::Option* peft_option_ = nullptr;
  tune::MergeOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_merge() { return std::make_unique<Merge>(); }

}  // namespace fettle::cli
