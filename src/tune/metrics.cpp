// SPDX-License-Identifier: Apache-2.0
#include "tune/metrics.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "io/durable.h"

namespace fettle::tune {

namespace {

// A killed run may leave half a line at the end.
std::string kept_lines(
    const std::filesystem::path& path, std::int64_t last_step) {
  std::ifstream file(path);
  std::string kept;
  for (std::string line; std::getline(file, line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step")) break;
    if (!json["step"].is_number_integer()) break;
    if (json["step"].get<std::int64_t>() > last_step) break;
    kept += line + "\n";
  }
  return kept;
}

// What reports read of a line has the kinds that they expect.
bool is_sound(const Json& line) {
  const auto numbers = [](const Json& list) {
    return list.is_array() && std::ranges::all_of(list, &Json::is_number);
  };
  const auto scored = [](const Json& score) {
    return score.is_object() && score.contains("nll") &&
           score["nll"].is_number();
  };
  if (!line.is_object() || !line.contains("step") ||
      !line["step"].is_number_integer()) {
    return false;
  }
  for (const char* key : {"eval", "seconds", "lr", "io_seconds"}) {
    if (line.contains(key) && !line[key].is_object()) return false;
  }
  if (line.contains("eval") && !std::ranges::all_of(line["eval"], scored)) {
    return false;
  }
  return !line.contains("choices") ||
         (line["choices"].is_array() &&
          std::ranges::all_of(line["choices"], numbers));
}

}  // namespace

std::vector<Json> read_metrics(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<Json> lines;
  for (std::string line; std::getline(file, line);) {
    Json json = Json::parse(line, nullptr, false);
    if (!is_sound(json)) {
      throw UserError(
          "tune",
          path.string(),
          "expected a JSON object with a step in each line, found something "
          "else; the file is damaged: remove its line");
    }
    lines.push_back(std::move(json));
  }
  return lines;
}

MetricsFile::MetricsFile(std::filesystem::path path, std::int64_t last_step)
    : path_(std::move(path)) {
  io::replace_file(path_, last_step < 0 ? "" : kept_lines(path_, last_step));
  stream_.open(path_, std::ios::app);
  stream_.flush();
}

void MetricsFile::append(const Json& line) {
  stream_ << line.dump() << '\n';
  stream_.flush();
  if (!stream_) {
    throw UserError(
        "tune", path_.string(), "cannot be written; is the disk full?");
  }
}

}  // namespace fettle::tune
