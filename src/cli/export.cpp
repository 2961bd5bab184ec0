// SPDX-License-Identifier: Apache-2.0
#include "export/export.h"
#include "cli/model_option.h"
#include "cli/mtp_option.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "artifact/run_state.h"
#include "cli/command.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/size_text.h"
#include "cli/targets.h"
#include "cli/unread.h"
#include "core/error.h"
#include "core/size_option.h"
#include "io/atomic_directory.h"

namespace fettle::cli {
namespace {

const std::map<std::string, at::ScalarType> kTypes{
    {"float32", at::kFloat},
    {"bfloat16", at::kBFloat16},
    {"float16", at::kHalf}};

class Export : public Command {
 public:
  void add_options(CLI::App& app) override {
    parser_ = &app;
    add_model_option(app, model_)->required();
    app.add_option("--out", out_, "Folder to write")->required();
    app.add_option(
           "--format",
           format_,
           "hf: one width and expert count; hf-padded: narrower experts filled "
           "with zero neurons; hf-code: experts as they are, with a Python "
           "file "
           "for transformers; ragged: Fettle's own form; of packed weights, "
           "with the same values: compressed-tensors (vLLM, transformers), "
           "gptq (GPTQModel), gguf (llama.cpp; plain weights too)")
        ->capture_default_str();
    app.add_option(
           "--dtype",
           dtype_,
           "Type of all weights on disk; of those that stay plain, where the "
           "others are codes. keep: as they are, and unpacked ones in the "
           "model's own type")
        ->check(CLI::IsMember({"keep", "float32", "bfloat16", "float16"}))
        ->capture_default_str();
    app.add_option(
           "--shard-size",
           shard_size_,
           "Most bytes of tensors in a .safetensors file; a larger model gets "
           "several and an index")
        ->capture_default_str()
        ->type_name("SIZE");
    add_mtp_option(app, mtp_);
    app.add_flag(
        "--drop-constants",
        options_.drop_constants,
        "Leave out constant outputs, which stock layouts have no place for");
    app.add_flag(
        "--drop-condensers",
        options_.drop_condensers,
        "Leave out condensers and router biases, which stock layouts have no "
        "place for: the bare router then chooses all experts of a token");
    app.add_flag(
        "--recode",
        options_.recode,
        "compressed-tensors, gptq: where codes don't fit the format, hold the "
        "same values in codes of more bits or in smaller groups");
    app.add_flag(
        "--nearest",
        options_.nearest,
        "Where the format can't hold a packed weight's values, write the "
        "nearest that it can");
  }

  void check(const Foreseen* foreseen) const override {
    const auto format = exporter::parse_format(format_);
    refuse_unread(
        *parser_,
        {{"--shard-size",
          format != exporter::Format::kGguf,
          "a format of .safetensors files; a GGUF is one file"}});
    if (parse_size(shard_size_, "--shard-size") < 1) {
      throw UsageError(
          "export", "--shard-size", "expected a size such as 5GB, found 0");
    }
    if (foreseen == nullptr) return check_new_folder({"--out", out_});
    if (exporter::needs_packed(format) && !foreseen->packed) {
      throw UserError(
          "export",
          "format " + format_,
          "holds packed weights, and no quant stage comes before; add one, or "
          "choose another format");
    }
  }

  // Weights are written one by one; then both models are run on a few tokens,
  // by the least memory that does.
  void plan_check(const Session& session, const model::ModelReader& reader) {
    sweep::Workload workload;
    workload.tokens = options_.check_sequences * options_.check_tokens;
    workload.longest_sequence = options_.check_tokens;
    workload.logit_rows = workload.tokens;
    workload.takes_experts_apart = true;
    workload.extra_bytes =
        workload.tokens * reader.config().vocab_size * 4;  // the first's logits
    const auto plan = session.least_plan(reader, workload);
    const at::ScalarType type = options_.check.compute_type;
    options_.check = plan.model_options();
    options_.check.compute_type = type;
    session.require_ram(reader, 3, /*outer_as_stored=*/true);
    session.require_ram(plan.ram_bytes() - plan.runtime_bytes);
  }

  Outcome run(Session& session) override {
    options_.format = exporter::parse_format(format_);
    options_.mtp = artifact::parse_mtp(mtp_);
    options_.shard_bytes =
        static_cast<std::uint64_t>(parse_size(shard_size_, "--shard-size"));
    if (dtype_ != "keep") options_.dtype = kTypes.at(dtype_);
    const auto opened = session.read(model_);
    const model::ModelReader& reader = *opened;
    // A GGUF holds the tokenizer: what Fettle does not use of it is reported.
    if (options_.format == exporter::Format::kGguf) session.tokenizer(model_);
    plan_check(session, reader);
    io::AtomicDirectory folder(out_, artifact::plain_output());
    options_.input_fingerprint = reader.fingerprint();
    options_.reporter = &session.reporter();
    const auto result = exporter::export_model(reader, options_, folder.path());
    folder.commit();
    Outcome outcome;
    outcome.json = result.to_json();
    outcome.json["out"] = out_;
    outcome.json["format"] = format_;
    outcome.text = size_table(result.before, result.after) +
                   padding_text(result) + check_text(result) +
                   types_text(result);
    outcome.text += closing_text({.next = {loader_text()}});
    return outcome;
  }

 private:
  // Who opens the result, and how.
  std::string loader_text() const {
    const std::string folder = std::filesystem::absolute(out_).string();
    switch (options_.format) {
      case exporter::Format::kRagged:
        return fmt::format(
            "fettle generate {} --prompt TEXT", shell_word(out_));
      case exporter::Format::kHfCode:
        return fmt::format(
            "transformers.AutoModelForCausalLM.from_pretrained(\"{}\", "
            "trust_remote_code=True)",
            folder);
      case exporter::Format::kGguf:
        return fmt::format(
            "llama-cli -m {} (llama.cpp)",
            shell_word((std::filesystem::path(out_) / "model.gguf").string()));
      case exporter::Format::kGptq:
        return fmt::format("GPTQModel.load(\"{}\")", folder);
      default:
        return fmt::format(
            "transformers.AutoModelForCausalLM.from_pretrained(\"{}\")",
            folder);
    }
  }

  static std::string padding_text(const exporter::ExportResult& result) {
    if (result.padded_neurons == 0) return "";
    return fmt::format(
        "{} neurons of zeros fill the experts up to {}: the same outputs, "
        "{:.0f} "
        "% of what the experts take\n",
        result.padded_neurons,
        result.after.max_width,
        100.0 * static_cast<double>(result.padded_neurons) /
            static_cast<double>(result.after.neurons));
  }

  // A token whose experts are chosen otherwise after a rounding differs much,
  // and says nothing of the whole.
  std::string check_text(const exporter::ExportResult& result) const {
    const bool predicts = options_.format != exporter::Format::kHfCode;
    if (!result.narrowed || !result.types.empty() || !predicts) {
      return fmt::format(
          "read back and compared: largest difference {:.2g} of the largest "
          "value\n",
          result.max_error);
    }
    return fmt::format(
        "read back and compared: every weight is as meant; rounding to a "
        "narrower type moves the predictions by KL {:.4f}\n",
        result.kl);
  }

  static std::string types_text(const exporter::ExportResult& result) {
    std::string text;
    for (const auto& [type, numbers] : result.types) {
      text +=
          fmt::format("{}{} as {}", text.empty() ? "" : ", ", numbers, type);
    }
    if (text.empty()) return text;
    const std::string rounded =
        result.rounded == 0
            ? std::string("every value exactly")
            : fmt::format("{} weights to the nearest", result.rounded);
    return fmt::format("numbers: {}; {}\n", text, rounded);
  }

  const CLI::App* parser_ = nullptr;
  std::string model_, out_, format_ = "hf", dtype_ = "keep", mtp_,
                            shard_size_ = "5GB";
  exporter::ExportOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_export() { return std::make_unique<Export>(); }

}  // namespace fettle::cli
