// SPDX-License-Identifier: Apache-2.0
#include "artifact/report_parts.h"

#include <catch2/catch.hpp>

using Catch::Matchers::Contains;
using fettle::Json;
using fettle::artifact::Making;
using fettle::artifact::script_text;

namespace {

std::string page_of(const Making& making, const Json& data = Json::object()) {
  kainjow::mustache::data view;
  view["title"] = "a <b>";
  return fettle::artifact::render_page(
      {"<style>{{{css}}}</style>{{title}} {{version}}{{{made}}}{{{scripts}}}",
       std::move(view),
       data,
       making});
}

}  // namespace

TEST_CASE("Data in a script element can't end it or change how it is read") {
  const Json data = {{"file", "a</script><!--<script>b"}, {"one", 1}};
  const std::string text = script_text(data);
  CHECK(text.find('<') == std::string::npos);
  CHECK(Json::parse(text) == data);
}

TEST_CASE("A name that is not UTF-8 is shown as far as it can be") {
  const std::string text = script_text({{"file", "caf\xE9.jsonl"}});
  CHECK(Json::parse(text)["file"] == "caf\uFFFD.jsonl");
}

TEST_CASE("A page tells how its result was made") {
  const std::string page = page_of(
      {"fettle trim 'a b' --keep 0.5 && <x>", {{"seed", "7"}}}, {{"kept", 1}});
  CHECK_THAT(page, Contains("How it was made"));
  CHECK_THAT(page, Contains("--keep 0.5 &amp;&amp; &lt;x&gt;</pre>"));
  CHECK_THAT(page, Contains("seed</th><td class=\"name\">7</td>"));
  CHECK_THAT(page, Contains("id=\"data\">{\"kept\":1}</script>"));
  CHECK_THAT(page, Contains("a &lt;b&gt;"));
  CHECK_THAT(page, Contains("prefers-color-scheme: dark"));
  CHECK_THAT(page_of({}), !Contains("How it was made"));
}
