// SPDX-License-Identifier: Apache-2.0
#include "analyze/choices_by_file.h"

#include "core/error.h"

namespace fettle::analyze {

Json FileChoices::to_json() const {
  return {{"file", file}, {"tokens", tokens}, {"choices", choices}};
}

FileChoices FileChoices::from_json(const Json& json) {
  const JsonObject object(json, "scores", "scores.json 'by_file'");
  FileChoices read{object.string("file"), object.integer("tokens"), {}};
  const auto refuse = [&] {
    object.refuse("choices", "must be a list of lists of counts");
  };
  if (!object.at("choices").is_array()) refuse();
  for (const Json& layer : object.at("choices")) {
    if (!layer.is_array()) refuse();
    auto& counts = read.choices.emplace_back();
    for (const Json& count : layer) {
      if (!count.is_number_integer() || count < 0) refuse();
      counts.push_back(count.get<std::int64_t>());
    }
  }
  return read;
}

FileChoices count_choices(
    model::CausalLm& model,
    const std::string& file,
    const std::vector<model::Sequence>& data,
    const AnalyzeOptions& options) {
  AnalyzeOptions counting;
  counting.scores = {"frequency"};
  counting.micro_batch_tokens = options.micro_batch_tokens;
  counting.sweep = options.sweep;
  const artifact::ScoreFile scores = analyze(model, data, counting);
  FileChoices counted{file, scores.tokens, {}};
  for (const artifact::LayerScores& layer : scores.layers) {
    auto& counts = counted.choices.emplace_back();
    if (layer.widths.empty()) continue;
    const at::Tensor tokens = layer.tokens.to(at::kLong).contiguous();
    const auto* data_of = tokens.const_data_ptr<std::int64_t>();
    counts.assign(data_of, data_of + tokens.numel());
  }
  return counted;
}

}  // namespace fettle::analyze
