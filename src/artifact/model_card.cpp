// SPDX-License-Identifier: Apache-2.0
#include "artifact/model_card.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "artifact/card_source.h"
#include "artifact/manifest.h"
#include "core/bytes.h"
#include "core/json.h"
#include "io/durable.h"

namespace fettle::artifact {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMark =
    "<!-- Written by Fettle from fettle.json; it replaces this file. -->";
constexpr const char* kReadme = "README.md";
constexpr std::size_t kLongest = 120;  // bytes of an option's value

// What stages make of a model, as tags of a hub say it.
constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kTags{
    {{"trim", "pruned"}, {"quant", "quantized"}, {"merge", "fine-tuned"}}};

bool is_card(const fs::path& readme) {
  return beginning_of(readme).find(kMark) != std::string::npos;
}

// "org/name".
bool is_hub_name(std::string_view name) {
  const auto is_plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' ||
           c == '_' || c == '.' || c == '/';
  };
  return std::ranges::count(name, '/') == 1 && !name.starts_with('/') &&
         !name.starts_with('.') && !name.ends_with('/') &&
         std::ranges::all_of(name, is_plain);
}

std::string yaml(const std::string& text) {
  const auto is_plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' ||
           c == '_' || c == '.' || c == '/';
  };
  const bool plain = !text.empty() &&
                     std::isalpha(static_cast<unsigned char>(text[0])) &&
                     std::ranges::all_of(text, is_plain);
  return plain ? text : Json(text).dump(-1, ' ', true);
}

// Of a path, its last part, and of a long text its beginning: whole characters.
std::string brief(std::string text) {
  while (text.size() > 1 && text.ends_with('/')) text.pop_back();
  if (const auto slash = text.rfind('/'); slash != std::string::npos) {
    text = text.substr(slash + 1);
  }
  if (text.size() <= kLongest) return text;
  const auto continues = [&](std::size_t at) {
    return (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80;
  };
  std::size_t end = kLongest;
  while (end > 0 && continues(end)) --end;
  return text.substr(0, end) + "...";
}

// Nothing that ends a cell or begins a tag.
std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '|' || c == '<' || c == '`') safe += '\\';
    safe += c == '\n' || c == '\r' ? ' ' : c;
  }
  return safe;
}

std::string cell(std::string text) { return escaped(brief(std::move(text))); }

std::string value_text(const Json& value) {
  if (value.is_string()) return cell(value.get<std::string>());
  if (!value.is_array()) return cell(value.dump());
  std::vector<std::string> parts;
  for (const Json& one : value) parts.push_back(value_text(one));
  return fmt::format("{}", fmt::join(parts, ", "));
}

// "name: value" of every option, those within others too.
void add_rows(const Json& options, std::string& rows) {
  for (const auto& [name, value] : options.items()) {
    if (value.is_object()) {
      add_rows(value, rows);
    } else if (!value.is_null()) {
      rows += fmt::format("| {} | {} |\n", cell(name), value_text(value));
    }
  }
}

const Json& at_or_null(const Json& json, const char* key) {
  static const Json kNull;
  return json.is_object() && json.contains(key) ? json.at(key) : kNull;
}

std::string number(const Json& value) {
  return value.is_number() ? fmt::format("{:.4f}", value.get<double>()) : "";
}

// The loss of one stage by the file that it was measured on.
std::string loss_rows(const Json& measured) {
  std::string rows;
  const Json& files = at_or_null(at_or_null(measured, "quality"), "files");
  if (files.is_array()) {
    for (const Json& file : files) {
      rows += fmt::format(
          "| {} | {} | {} | {} |\n",
          value_text(at_or_null(file, "file")),
          number(at_or_null(file, "nll_before")),
          number(at_or_null(file, "nll")),
          number(at_or_null(file, "kl")));
    }
  }
  const Json& tune = at_or_null(measured, "tune");
  const Json& before = at_or_null(tune, "held_out_before");
  const Json& after = at_or_null(tune, "held_out_after");
  if (after.is_object()) {
    for (const auto& [file, score] : after.items()) {
      rows += fmt::format(
          "| {} | {} | {} | |\n",
          cell(file),
          number(at_or_null(at_or_null(before, file.c_str()), "nll")),
          number(at_or_null(score, "nll")));
    }
  }
  if (rows.empty()) return rows;
  return "\n| held out | loss before | after | KL |\n|---|---|---|---|\n" +
         rows;
}

std::string size_rows(const Json& stages) {
  const Json* first = nullptr;
  const Json* last = nullptr;
  for (const Json& stage : stages) {
    const Json& measured = at_or_null(stage, "measured");
    if (!at_or_null(measured, "after").is_object()) continue;
    if (first == nullptr) first = &at_or_null(measured, "before");
    last = &at_or_null(measured, "after");
  }
  if (last == nullptr) return {};
  std::string rows = "\n## Size\n\n| | before | now |\n|---|---|---|\n";
  const auto add = [&](const char* name,
                       const char* key,
                       const std::function<std::string(std::int64_t)>& text) {
    const Json& from = at_or_null(*first, key);
    const Json& to = at_or_null(*last, key);
    if (!from.is_number_integer() || !to.is_number_integer()) return;
    rows += fmt::format(
        "| {} | {} | {} |\n",
        name,
        text(from.get<std::int64_t>()),
        text(to.get<std::int64_t>()));
  };
  const auto plain = [](std::int64_t n) { return fmt::format("{}", n); };
  add("bytes of weights", "bytes", format_bytes);
  add("parameters", "parameters", plain);
  add("of them at work on a token", "active_parameters", plain);
  add("experts", "experts", plain);
  add("neurons of experts", "neurons", plain);
  return rows;
}

// Folded away; empty where there are no rows.
std::string options_table(const std::string& rows) {
  if (rows.empty()) return rows;
  return "\n<details><summary>Options</summary>\n\n| option | value |\n"
         "|---|---|\n" +
         rows + "\n</details>\n";
}

std::string history(const Json& stages) {
  std::string text = "\n## What was done\n";
  int place = 0;
  for (const Json& stage : stages) {
    const Json& measured = at_or_null(stage, "measured");
    text += fmt::format(
        "\n### {}. {}\n\nBy Fettle {}.",
        ++place,
        value_text(at_or_null(stage, "stage")),
        value_text(at_or_null(stage, "version")));
    const Json& data = at_or_null(measured, "data");
    if (data.is_array()) text += " Data: " + value_text(data) + ".";
    text += "\n" + loss_rows(measured);
    std::string rows;
    add_rows(at_or_null(stage, "options"), rows);
    text += options_table(rows);
  }
  return text;
}

bool any_file(
    const fs::path& folder, std::string_view stem, std::string_view end) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(stem) && name.ends_with(end)) return true;
  }
  return false;
}

// Who reads the weights.
struct Loaders {
  std::string library;
  std::string text;
};

std::string transformers_text(std::string_view more) {
  return fmt::format(
      "With transformers 5:\n\n```python\nfrom transformers import "
      "AutoModelForCausalLM, AutoTokenizer\n\n"
      "model = AutoModelForCausalLM.from_pretrained(FOLDER{0})\n"
      "tokenizer = AutoTokenizer.from_pretrained(FOLDER{0})\n```\n",
      more);
}

Loaders loaders_of(const fs::path& folder, const Json& config) {
  constexpr std::string_view kFettle =
      "With Fettle:\n\n```\nfettle generate FOLDER --prompt TEXT\nfettle serve "
      "FOLDER\n```\n";
  if (any_file(folder, "", ".gguf")) {
    return {
        "llama.cpp", "With llama.cpp:\n\n```\nllama-cli -m model.gguf\n```\n"};
  }
  if (fs::exists(folder / "modeling_fettle.py")) {
    return {
        "transformers",
        "The experts have widths of their own, which modeling_fettle.py in "
        "this folder tells transformers. PEFT and lm-eval's `hf` work on it.\n"
        "\n" +
            transformers_text(", trust_remote_code=True")};
  }
  const Json& quantization = at_or_null(config, "quantization_config");
  const Json& method = at_or_null(quantization, "quant_method");
  if (method == "gptq") {
    return {
        "transformers",
        "With GPTQModel:\n\n```python\nGPTQModel.load(FOLDER)\n```\n"};
  }
  const bool own = any_file(folder, "fettle", ".safetensors") ||
                   any_file(folder, "packed", ".safetensors");
  if (own) {
    return {
        "fettle",
        std::string(kFettle) +
            "\nOther programs don't know this form: `fettle export` writes "
            "theirs.\n"};
  }
  const std::string vllm = "\nWith vLLM:\n\n```\nvllm serve FOLDER\n```\n";
  if (method == "compressed-tensors") {
    return {"transformers", transformers_text("") + vllm};
  }
  return {
      "transformers",
      transformers_text("") + vllm + "\n" + std::string(kFettle)};
}

std::string front_matter(
    const fs::path& folder, const Json& manifest, const Loaders& loaders) {
  std::string text = "---\n";
  const Json& base = at_or_null(manifest, "base_model");
  if (base.is_string()) {
    text += "base_model: " + yaml(base.get<std::string>()) + "\n";
  }
  const std::string carried = carried_front_matter(folder / kSourceReadme);
  text += carried;
  if (carried.find("pipeline_tag:") == std::string::npos) {
    text += "pipeline_tag: text-generation\n";
  }
  text += "library_name: " + loaders.library + "\n";
  text += "tags:\n- fettle\n- mixture-of-experts\n";
  for (const auto& [stage, tag] : kTags) {
    const bool done = std::ranges::any_of(
        manifest.at("stages"),
        [&](const Json& one) { return at_or_null(one, "stage") == stage; });
    if (done) text += fmt::format("- {}\n", tag);
  }
  return text + "---\n";
}

}  // namespace

std::string model_name(const fs::path& folder) {
  std::error_code ignored;
  const fs::path whole = fs::weakly_canonical(folder, ignored);
  const fs::path config = folder / "config.json";
  if (fs::exists(config, ignored)) {
    const Json json = read_json(config, "manifest");
    const Json& name = at_or_null(json, "_name_or_path");
    if (name.is_string() && is_hub_name(name.get<std::string>())) return name;
  }
  // models--org--name/snapshots/COMMIT
  constexpr std::string_view kCached = "models--";
  for (const fs::path& part : whole) {
    std::string name = part.string();
    if (!name.starts_with(kCached)) continue;
    name = name.substr(kCached.size());
    if (const auto at = name.find("--"); at != std::string::npos) {
      return name.replace(at, 2, "/");
    }
  }
  return whole.filename().string();
}

void keep_readme(const fs::path& from, const fs::path& to) {
  for (const char* name : {kReadme, kSourceReadme}) {
    const fs::path readme = from / name;
    if (!fs::is_regular_file(readme) || is_card(readme)) continue;
    io::copy_contents(readme, to / kSourceReadme);
    fs::permissions(
        to / kSourceReadme, fs::perms::owner_write, fs::perm_options::add);
    return;
  }
}

void write_card(const fs::path& folder) {
  const Json manifest = read_json(folder / "fettle.json", "manifest");
  const fs::path config_path = folder / "config.json";
  const Json config = fs::exists(config_path)
                          ? read_json(config_path, "manifest")
                          : Json::object();
  const Loaders loaders = loaders_of(folder, config);
  const Json& stages = manifest.at("stages");
  const Json& base = at_or_null(manifest, "base_model");
  std::string text = front_matter(folder, manifest, loaders);
  text += fmt::format("{}\n\n", kMark);
  if (base.is_string()) {
    text += fmt::format(
        "# {0}, changed\n\nA Mixture-of-Experts model that Fettle made from "
        "{0}.\n",
        cell(base.get<std::string>()));
  }
  if (fs::exists(folder / kSourceReadme)) {
    text += fmt::format(
        "What its makers say of it is in [{0}]({0}).\n", kSourceReadme);
  }
  text += "\n## How to load it\n\n" + loaders.text;
  text += size_rows(stages) + history(stages);
  io::replace_file(folder / kReadme, text);
}

void write_adapter_card(const fs::path& folder, const fs::path& base) {
  const Json json = read_json(folder / "adapter.json", "adapter");
  const std::string name = model_name(base);
  std::string carried;
  for (const char* readme : {kSourceReadme, kReadme}) {
    if (carried.empty()) carried = carried_front_matter(base / readme);
  }
  std::string text = "---\nbase_model: " + yaml(name) + "\n" + carried;
  if (carried.find("pipeline_tag:") == std::string::npos) {
    text += "pipeline_tag: text-generation\n";
  }
  text += fmt::format(
      "library_name: fettle\ntags:\n- fettle\n- adapter\n---\n{}\n\n"
      "# An adapter for {}\n\nTrained by Fettle {} with the method {}.\n",
      kMark,
      cell(name),
      version(),
      value_text(at_or_null(json, "method")));
  text +=
      "\n```\nfettle merge BASE --adapter FOLDER --out MERGED\nfettle merge "
      "BASE --adapter FOLDER --peft PEFT\n```\n\nThe second writes it for "
      "PEFT, where PEFT can hold it.\n";
  text += loss_rows({{"tune", at_or_null(json, "measured")}});
  std::string rows;
  add_rows(at_or_null(json, "options"), rows);
  io::replace_file(folder / kReadme, text + options_table(rows));
}

}  // namespace fettle::artifact
