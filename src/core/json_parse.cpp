// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "core/json_members.h"
#include "core/json_numbers.h"
#include "core/text_file.h"

namespace fettle {
namespace {

struct Source {
  std::string_view text;
  std::string_view stage;
  std::string_view subject;
  // Where `visit` takes the members out one by one; none: nowhere.
  std::optional<std::string_view> taken_from = {};
  const MemberVisitor* visit = nullptr;

  [[noreturn]] void refuse(const std::string& why) const {
    throw UserError(stage, subject, why);
  }
};

struct Failure {
  std::size_t position = 0;  // bytes read, the one that was wrong included
  std::string message;       // the library's
};

// Builds the tree from the library's events. The library's own builder looks at
// all members of an object again whenever one of them ends.
class TreeBuilder final : public nlohmann::json_sax<Json> {
 public:
  TreeBuilder(const Source& source, const SpelledText* spelled)
      : source_(source), spelled_(spelled) {}

  Json take() { return std::move(root_); }
  const Failure& failure() const { return failure_; }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& spelling) override {
    if (spelled_ != nullptr) value = spelled_->value(spelling).value_or(value);
    return add(value);
  }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(std::size_t /*size*/) override {
    return open(Json::object());
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t /*size*/) override {
    return open(Json::array());
  }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    auto& object = open_.back()->get_ref<Json::object_t&>();
    const auto [member, added] = object.try_emplace(std::move(name), nullptr);
    if (!added) {
      source_.refuse(fmt::format("duplicate JSON key '{}'", member->first));
    }
    if (open_.size() == 1) outer_ = member->first;
    if (open_.back() == given_) member_ = member;
    slot_ = &member->second;
    return true;
  }

  bool parse_error(
      std::size_t position,
      const std::string& /*token*/,
      const Json::exception& error) override {
    failure_ = {position, error.what()};
    return false;
  }

 private:
  Json* put(Json value) {
    if (open_.empty()) slot_ = &root_;
    if (!open_.empty() && open_.back()->is_array()) {
      auto& list = open_.back()->get_ref<Json::array_t&>();
      list.push_back(std::move(value));
      return &list.back();
    }
    *slot_ = std::move(value);
    return slot_;
  }

  bool add(Json value) {
    put(std::move(value));
    give_member();
    return true;
  }

  bool open(Json empty) {
    if (open_.size() >= static_cast<std::size_t>(kMaxJsonDepth)) {
      source_.refuse(fmt::format(
          "JSON nested deeper than {} levels; no such file needs that",
          kMaxJsonDepth));
    }
    const bool object = empty.is_object();
    Json* const placed = put(std::move(empty));
    if (object && is_given()) given_ = placed;
    open_.push_back(placed);
    return true;
  }

  bool close() {
    if (open_.back() == given_) given_ = nullptr;
    open_.pop_back();
    give_member();
    return true;
  }

  // Whether the object that opens is the one whose members are taken out.
  bool is_given() const {
    if (!source_.taken_from) return false;
    if (source_.taken_from->empty()) return open_.empty();
    return open_.size() == 1 && open_[0]->is_object() &&
           outer_ == *source_.taken_from;
  }

  // Hands over what has just been put, where it is such a member.
  void give_member() {
    if (given_ == nullptr || open_.back() != given_) return;
    auto node = given_->get_ref<Json::object_t&>().extract(member_);
    (*source_.visit)(node.key(), node.mapped());
  }

  const Source& source_;
  const SpelledText* spelled_;
  Json root_;
  std::vector<Json*> open_;  // objects and lists, the innermost last
  Json* slot_ = nullptr;     // of the key that came last
  std::string outer_;        // the root's key that came last
  Json* given_ = nullptr;    // see is_given
  Json::object_t::iterator member_;
  Failure failure_;
};

// "line 3, column 7": of the byte before `position`; characters are counted.
std::string place_of(std::string_view text, std::size_t position) {
  const std::string_view before = text.substr(
      0, std::min(std::max<std::size_t>(position, 1) - 1, text.size()));
  const std::size_t line = before.rfind('\n');
  const std::string_view last =
      line == std::string_view::npos ? before : before.substr(line + 1);
  const auto column = std::ranges::count_if(last, [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  });
  if (text.find('\n') == std::string_view::npos) {
    return fmt::format("column {}", column + 1);
  }
  return fmt::format(
      "line {}, column {}", std::ranges::count(before, '\n') + 1, column + 1);
}

// What is left of the library's message without its own prefix and without what
// it read, which may be long: "unexpected ']'; expected string literal".
std::string detail_of(const std::string& message) {
  constexpr std::string_view kRead = "; last read: '";
  constexpr std::string_view kExpected = "; expected ";
  std::size_t begin = message.find(" - ");
  begin = begin == std::string::npos ? message.find("] ") + 2 : begin + 3;
  std::string detail = message.substr(begin);
  const std::size_t read = detail.find(kRead);
  if (read == std::string::npos) return detail;
  const std::size_t expected = detail.rfind(kExpected);
  const bool told = expected != std::string::npos && expected > read;
  return detail.substr(0, read) + (told ? detail.substr(expected) : "");
}

[[noreturn]] void refuse_text(const Source& source, const Failure& failure) {
  const std::string_view text = source.text;
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    source.refuse("not valid JSON: nothing is in it");
  }
  if (const std::string_view kind = kind_of_content(text); !kind.empty()) {
    source.refuse(fmt::format("not valid JSON: this is {}", kind));
  }
  if (failure.position > text.size()) {
    source.refuse(fmt::format(
        "not valid JSON: it ends too early, at {}. Perhaps an incomplete "
        "download?",
        place_of(text, text.size())));
  }
  source.refuse(fmt::format(
      "not valid JSON at {}: {}",
      place_of(text, failure.position),
      detail_of(failure.message)));
}

// Values that only Python's JSON has are rare: what they cost is paid where
// they are.
Json parse(const Source& source) {
  TreeBuilder builder(source, nullptr);
  if (Json::sax_parse(source.text, &builder)) return builder.take();
  const auto spelled =
      source.visit == nullptr ? spell_non_finite(source.text) : std::nullopt;
  if (!spelled) refuse_text(source, builder.failure());
  TreeBuilder again(source, &*spelled);
  if (Json::sax_parse(spelled->text, &again)) return again.take();
  Failure failure = again.failure();
  failure.position = spelled->original(failure.position);
  refuse_text(source, failure);
}

}  // namespace

Json parse_json(
    std::string_view text, std::string_view stage, std::string_view subject) {
  return parse({text, stage, subject});
}

Json parse_json_members(
    std::string_view text,
    const MemberSource& from,
    const MemberVisitor& visit) {
  return parse({text, from.stage, from.subject, from.object, &visit});
}

Json read_json(const std::filesystem::path& path, std::string_view stage) {
  return parse_json(read_text_file(path, stage), stage, path.string());
}

}  // namespace fettle
