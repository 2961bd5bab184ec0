// SPDX-License-Identifier: Apache-2.0
#include "tune/metrics.h"

#include <string>

#include "core/error.h"
#include "io/file.h"

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

}  // namespace

std::vector<Json> read_metrics(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<Json> lines;
  for (std::string line; std::getline(file, line);) {
    Json json = Json::parse(line, nullptr, false);
    if (!json.is_object()) {
      throw UserError(
          "tune",
          path.string(),
          "expected a JSON object in each line, found something else; the "
          "file is damaged");
    }
    lines.push_back(std::move(json));
  }
  return lines;
}

MetricsFile::MetricsFile(std::filesystem::path path, std::int64_t last_step)
    : path_(std::move(path)) {
  io::write_file(path_, last_step < 0 ? "" : kept_lines(path_, last_step));
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
