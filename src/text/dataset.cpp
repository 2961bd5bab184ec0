// SPDX-License-Identifier: Apache-2.0
#include "text/dataset.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/json.h"

namespace fettle::text {
namespace {

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

WeightedFile parse_file(std::string_view item, std::string_view whole) {
  WeightedFile file;
  const std::size_t colon = item.rfind(':');
  if (colon != std::string_view::npos) {
    if (const auto weight = parse_number(item.substr(colon + 1))) {
      file.weight = *weight;
      item = item.substr(0, colon);
    }
  }
  if (!(file.weight > 0) || !std::isfinite(file.weight)) {
    throw UsageError(
        "data",
        whole,
        fmt::format("a weight must be positive, found {}", file.weight));
  }
  if (item.empty()) {
    throw UsageError(
        "data", whole, "expected files such as a.jsonl:2,b.jsonl:1");
  }
  file.path = item;
  return file;
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace

std::vector<WeightedFile> parse_data_option(std::string_view text) {
  std::vector<WeightedFile> files;
  std::size_t begin = 0;
  while (true) {
    const std::size_t comma = text.find(',', begin);
    files.push_back(parse_file(text.substr(begin, comma - begin), text));
    if (comma == std::string_view::npos) return files;
    begin = comma + 1;
  }
}

JsonlReader::JsonlReader(
    std::filesystem::path path,
    const Tokenizer& tokenizer,
    SampleOptions options)
    : path_(std::move(path)),
      file_(path_, std::ios::binary),
      encoder_(tokenizer, std::move(options)) {
  if (!file_ || std::filesystem::is_directory(path_)) {
    throw UserError(
        "data", path_.string(), "cannot be read; expected a JSON Lines file");
  }
}

std::optional<Sample> JsonlReader::next() {
  std::string text;
  while (std::getline(file_, text)) {
    ++line_;
    if (is_blank(text)) continue;
    const std::string subject = fmt::format("{}:{}", path_.string(), line_);
    Sample sample =
        encoder_.encode(parse_json(text, "data", subject), text, subject);
    found_any_ = true;
    return sample;
  }
  if (file_.bad()) {
    throw UserError(
        "data",
        path_.string(),
        fmt::format("cannot be read beyond line {}", line_));
  }
  if (!found_any_) {
    throw UserError("data", path_.string(), "holds no samples");
  }
  encoder_.check_answers();
  return std::nullopt;
}

std::vector<Sample> read_samples(
    const std::filesystem::path& path,
    const Tokenizer& tokenizer,
    const SampleOptions& options) {
  JsonlReader reader(path, tokenizer, options);
  std::vector<Sample> samples;
  while (auto sample = reader.next()) samples.push_back(std::move(*sample));
  return samples;
}

}  // namespace fettle::text
