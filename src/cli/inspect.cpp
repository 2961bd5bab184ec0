// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "artifact/model_writer.h"
#include "artifact/tensor_file.h"
#include "cli/command.h"
#include "cli/model_option.h"
#include "cli/session.h"
#include "cli/shell_text.h"
#include "cli/table.h"
#include "core/bytes.h"
#include "model/weights/model_reader.h"
#include "model/weights/weight_values.h"

namespace fettle::cli {
namespace {

struct Part {
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;
  std::map<std::string, std::int64_t> stored_as = {};  // parameters by form
};

// Parts of a model as people speak of them.
std::string part_of(model::Role role) {
  const std::string name(model::role_name(role));
  const auto begins = [&](const char* prefix) {
    return name.rfind(prefix, 0) == 0;
  };
  if (begins("expert")) return "experts";
  if (begins("router")) return "routers";
  if (begins("shared")) return "shared experts";
  if (begins("dense")) return "dense layers";
  if (begins("embed") || begins("lm_head")) return "embeddings and head";
  if (name.find("norm") != std::string::npos) return "norms";
  if (begins("conv") || begins("short_conv") || begins("delta") ||
      begins("mamba")) {
    return "convolutions and recurrences";
  }
  return "attention";
}

std::string stored_name(
    const model::ModelReader& reader, const model::WeightId& id) {
  if (const auto* form = reader.stored_form(id)) return form->name();
  return std::string(
      io::name_of(artifact::stored_type(reader.dtype(id), "weight")));
}

std::string bits_text(std::int64_t bytes, std::int64_t parameters) {
  if (parameters == 0) return "-";
  return fmt::format(
      "{:.2f}",
      8.0 * static_cast<double>(bytes) / static_cast<double>(parameters));
}

// "int4, int8 with zeros": by name, leaving out what has no weight.
std::string stored_text(const Part& part) {
  std::vector<std::string_view> names;
  for (const auto& [name, numel] : part.stored_as) {
    if (numel > 0) names.push_back(name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

// What is copied and not read, by part: {"part": {"tensors": n, "bytes": b}}.
Json carried_json(const model::ModelReader& reader) {
  Json parts = Json::object();
  for (const model::CarriedTensor& carried : reader.carried()) {
    Json& part = parts[carried.part];
    if (part.is_null()) part = Json::object();
    part["tensors"] = part.value("tensors", 0) + 1;
    part["bytes"] =
        part.value("bytes", std::uint64_t{0}) + carried.tensor->bytes();
    const bool head = carried.kind == model::CarriedKind::kMtp;
    part["kind"] = head ? "predicts further tokens" : "part of a larger model";
  }
  return parts;
}

std::string carried_text(const Json& parts) {
  if (parts.empty()) return "";
  Table table({"carried: copied, not read", "tensors", "size", "what"});
  for (const auto& [name, part] : parts.items()) {
    table.add(
        {name + "*",
         fmt::format("{}", part.at("tensors").get<std::int64_t>()),
         format_bytes(part.at("bytes").get<std::int64_t>()),
         part.at("kind").get<std::string>()});
  }
  return table.text() + "\n";
}

std::map<std::string, Part> parts_of(const model::ModelReader& reader) {
  std::map<std::string, Part> parts;
  for (const auto& id : model::model_weights(reader.config())) {
    std::int64_t numel = 1;
    for (const auto n : model::weight_shape(reader.config(), id)) numel *= n;
    Part& part = parts[part_of(id.role)];
    part.stored_as[stored_name(reader, id)] += numel;
    part.parameters += numel;
    part.bytes += reader.stored_bytes(id);
  }
  return parts;
}

Json layer_json(const model::LayerConfig& layer) {
  if (!layer.sparse) return {{"dense_width", layer.dense_width}};
  Json json = {
      {"experts", layer.num_experts()},
      {"top_k", layer.top_k},
      {"widths", layer.expert_widths},
      {"shared_width", layer.shared_width},
      {"constants", layer.has_constants},
      {"condensers", layer.condensers},
      {"router_bias", layer.router_bias}};
  if (layer.has_dense()) json["dense_width"] = layer.dense_width;
  return json;
}

std::string widths_text(const model::LayerConfig& layer) {
  if (!layer.has_mlp()) return "no MLP";
  if (!layer.sparse) return fmt::format("dense, {}", layer.dense_width);
  auto widths = layer.expert_widths;
  std::sort(widths.begin(), widths.end());
  const auto middle = widths[widths.size() / 2];
  if (widths.front() == widths.back()) return fmt::format("{}", middle);
  return fmt::format("{}..{}..{}", widths.front(), middle, widths.back());
}

class Inspect : public Command {
 public:
  void add_options(CLI::App& app) override {
    add_model_option(app, model_)->required();
    app.add_flag(
        "--values",
        values_,
        "Read every weight too: refuse NaN and infinity, tell which weights "
        "are 0 throughout");
  }

  void check(const Foreseen*) const override {}

  Outcome run(Session& session) override {
    const auto opened = session.read(model_);
    const model::ModelReader& reader = *opened;
    reader.check_tied_head();
    session.require_ram(reader, 0);
    const auto& config = reader.config();
    const auto parts = parts_of(reader);
    std::int64_t bytes = 0;
    Json parts_json = Json::object();
    Table table({"part", "parameters", "size", "bits each", "stored as"});
    for (const auto& [name, part] : parts) {
      bytes += part.bytes;
      parts_json[name] = {
          {"parameters", part.parameters},
          {"bytes", part.bytes},
          {"stored_as", part.stored_as}};
      table.add(
          {name,
           fmt::format("{}", part.parameters),
           format_bytes(part.bytes),
           bits_text(part.bytes, part.parameters),
           stored_text(part)});
    }
    table.add(
        {"all",
         fmt::format("{}", config.parameters()),
         format_bytes(bytes),
         bits_text(bytes, config.parameters()),
         ""});
    Json layers = Json::array();
    Table widths({"layer", "experts", "top-k", "expert width"});
    for (std::int64_t l = 0; l < config.num_layers(); ++l) {
      const auto& layer = config.layers[l];
      layers.push_back(layer_json(layer));
      widths.add(
          {fmt::format("{}", l),
           fmt::format("{}", layer.num_experts()),
           fmt::format("{}", layer.top_k),
           widths_text(layer)});
    }
    const Json carried = carried_json(reader);
    Outcome outcome;
    outcome.json = {
        {"family", config.family},
        {"parameters", config.parameters()},
        {"active_parameters", config.active_parameters()},
        {"bytes", bytes},
        {"parts", parts_json},
        {"carried", carried},
        {"carried_bytes", reader.carried_bytes()},
        {"layers", layers}};
    outcome.text = fmt::format(
        "{}: {} layers, hidden size {}, vocabulary {}, {} parameters, {} of "
        "them active on a token\n\n{}\n{}{}",
        config.family,
        config.num_layers(),
        config.hidden_size,
        config.vocab_size,
        config.parameters(),
        config.active_parameters(),
        table.text(),
        carried_text(carried),
        widths.text());
    if (values_) add_values(reader, session, outcome);
    outcome.text += "\n" + closing_text(
                               {.next = {
                                    "fettle",
                                    "analyze",
                                    model_,
                                    "--data",
                                    "calib.jsonl",
                                    "--out",
                                    "scores"}});
    return outcome;
  }

 private:
  static void add_values(
      const model::ModelReader& reader, Session& session, Outcome& outcome) {
    const auto values = checked_values(reader, session.reporter(), "inspect");
    outcome.json["values"] = {
        {"weights", values.weights}, {"zero", values.zero}};
    outcome.text += fmt::format(
        "\nvalues of {} weights: all are finite; {}\n",
        values.weights,
        values.zero.empty() ? "none is 0 throughout"
                            : fmt::format(
                                  "{} are 0 throughout, {} first",
                                  values.zero.size(),
                                  values.zero.front()));
  }

  std::string model_;
  bool values_ = false;
};

}  // namespace

std::unique_ptr<Command> make_inspect() { return std::make_unique<Inspect>(); }

}  // namespace fettle::cli
