// SPDX-License-Identifier: Apache-2.0
#include "text/row_reader.h"

#include <fmt/format.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "core/error.h"
#include "text/file_kind.h"
#include "text/raw_json.h"

namespace fettle::text {
namespace {

constexpr std::size_t kBlock = std::size_t{1} << 16;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

}  // namespace

// The file's bytes, unpacked where they are gzip's.
class RowReader::Stream {
 public:
  explicit Stream(const std::filesystem::path& path)
      : path_(path), file_(gzopen(path.c_str(), "rb")) {
    if (file_ == nullptr) fail(std::strerror(errno));
  }
  ~Stream() { gzclose_r(file_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // The next bytes, without taking them.
  std::string_view peek() {
    if (at_ == block_.size()) fill();
    return std::string_view(block_).substr(at_);
  }

  void skip(std::size_t bytes) { at_ += bytes; }

  // The next line without its end; false at the end of the file.
  bool line(std::string& out) {
    out.clear();
    if (peek().empty()) return false;
    while (!peek().empty()) {
      const std::string_view rest = peek();
      const std::size_t end = rest.find('\n');
      out += rest.substr(0, end);
      if (end != std::string_view::npos) {
        skip(end + 1);
        break;
      }
      skip(rest.size());
    }
    return true;
  }

 private:
  [[noreturn]] void fail(std::string_view why) const {
    throw UserError(
        "data", path_.string(), fmt::format("cannot be read: {}", why));
  }

  void fill() {
    block_.resize(kBlock);
    const int count = gzread(file_, block_.data(), kBlock);
    int code = 0;
    const char* why = gzerror(file_, &code);
    if (count < 0 || (code != Z_OK && code != Z_STREAM_END)) {
      if (code == Z_ERRNO) fail(std::strerror(errno));
      fail(fmt::format(
          "its gzip stream is damaged or ends early ({}); get the file again",
          why));
    }
    block_.resize(static_cast<std::size_t>(count));
    at_ = 0;
  }

  const std::filesystem::path& path_;
  gzFile file_;
  std::string block_;
  std::size_t at_ = 0;
};

RowReader::RowReader(std::filesystem::path path) : path_(std::move(path)) {
  if (std::filesystem::is_directory(path_)) {
    refuse("cannot be read; expected a JSON Lines file, found a folder");
  }
  stream_ = std::make_unique<Stream>(path_);
  if (stream_->peek().starts_with(kByteOrderMark)) {
    stream_->skip(kByteOrderMark.size());
  }
  const std::string_view head = stream_->peek();
  if (const std::string kind = foreign_kind(head, path_); !kind.empty()) {
    refuse(kind);
  }
  const std::size_t first = head.find_first_not_of(" \t\r\n");
  is_array_ = first != std::string_view::npos && head[first] == '[';
  if (is_array_) read_array();
}

RowReader::~RowReader() = default;
RowReader::RowReader(RowReader&&) noexcept = default;

void RowReader::refuse(std::string_view why) const {
  throw UserError("data", path_.string(), why);
}

std::string RowReader::subject() const {
  return is_array_ ? fmt::format("{}, item {}", path_.string(), number_)
                   : fmt::format("{}:{}", path_.string(), number_);
}

std::optional<std::string_view> RowReader::next() {
  return is_array_ ? next_item() : next_line();
}

std::optional<std::string_view> RowReader::next_line() {
  while (stream_->line(text_)) {
    ++number_;
    if (is_blank(text_)) continue;
    const std::size_t begin = skip_json_space(text_, 0);
    if (text_[begin] == '{' && json_value_end(text_, begin) == text_.npos &&
        !stream_->peek().empty()) {
      throw UserError(
          "data",
          subject(),
          fmt::format(
              "expected a JSON object on one line, found one that goes over "
              "several; write each on a line of its own: jq -c . {} > "
              "lines.jsonl",
              path_.string()));
    }
    return text_;
  }
  return std::nullopt;
}

void RowReader::read_array() {
  while (!stream_->peek().empty()) {
    text_ += stream_->peek();
    stream_->skip(stream_->peek().size());
  }
  const std::size_t begin = skip_json_space(text_, 0);
  const std::size_t end = json_value_end(text_, begin);
  if (end == text_.npos) {
    refuse("the JSON array that begins it has no end; is the file whole?");
  }
  if (skip_json_space(text_, end) != text_.size()) {
    refuse(
        "expected one JSON array or a JSON object a line, found more behind "
        "the first array");
  }
  at_ = skip_json_space(text_, begin + 1);
}

std::optional<std::string_view> RowReader::next_item() {
  if (at_ >= text_.size() || text_[at_] == ']') return std::nullopt;
  const std::size_t end = json_value_end(text_, at_);
  const std::string_view row = std::string_view(text_).substr(at_, end - at_);
  ++number_;
  at_ = skip_json_space(text_, end);
  if (at_ < text_.size() && text_[at_] == ',') {
    at_ = skip_json_space(text_, at_ + 1);
  } else if (text_[at_] != ']') {
    throw UserError("data", subject(), "expected a comma behind this item");
  }
  return row;
}

}  // namespace fettle::text
