// SPDX-License-Identifier: Apache-2.0
#include "model/family/end_tokens.h"

#include <stdlib.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;

namespace {

using Ids = std::vector<std::int64_t>;

class Folder {
 public:
  explicit Folder(const char* generation_config = nullptr) {
    REQUIRE(::mkdtemp(path_.data()) != nullptr);
    if (generation_config == nullptr) return;
    std::ofstream(std::filesystem::path(path_) / "generation_config.json")
        << generation_config;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  // Beside the sample configuration, of 11 tokens.
  Ids ends(const Json& changes = {{"eos_token_id", 7}}) const {
    return end_tokens(path_, testing::sample("mixtral", changes));
  }
  Ids ends_of(const std::string& family) const {
    return end_tokens(path_, testing::sample(family));
  }

 private:
  std::string path_ = std::filesystem::temp_directory_path() / "ends-XXXXXX";
};

}  // namespace

TEST_CASE("generation_config.json says which tokens end a generation") {
  CHECK(Folder(R"({"eos_token_id": 5})").ends() == Ids{5});
  CHECK(Folder(R"({"eos_token_id": [5, 3]})").ends() == Ids{5, 3});
}

TEST_CASE("where it is absent or names none, config.json does") {
  CHECK(Folder().ends() == Ids{7});
  CHECK(Folder("{}").ends() == Ids{7});
  CHECK(Folder(R"({"eos_token_id": null})").ends() == Ids{7});
  CHECK(Folder(R"({"eos_token_id": []})").ends() == Ids{7});
  CHECK(Folder().ends({{"eos_token_id", Ids{7, 9}}}) == Ids{7, 9});
  CHECK(Folder().ends({{"eos_token_id", nullptr}}).empty());
}

TEST_CASE(
    "what config.json names must be a token, a family's default need not") {
  CHECK_THROWS_WITH(
      Folder().ends({{"eos_token_id", 11}}),
      Catch::Contains("config.json") && Catch::Contains("token 11"));
  CHECK(
      Folder(R"({"eos_token_id": 5})").ends({{"eos_token_id", 11}}) == Ids{5});
  CHECK(Folder().ends_of("olmoe") == Ids{50279});
}

TEST_CASE("end tokens that are none are refused by name") {
  for (const char* damaged :
       {R"({"eos_token_id": "</s>"})",
        R"({"eos_token_id": [1, "2"]})",
        R"({"eos_token_id": 1.5})",
        R"({"eos_token_id": 1000000})",
        R"({"eos_token_id": [-3]})"}) {
    CAPTURE(damaged);
    const Folder folder(damaged);
    CHECK_THROWS_AS(folder.ends(), UserError);
    CHECK_THROWS_WITH(folder.ends(), Catch::Contains("eos_token_id"));
  }
  for (const char* damaged : {"[]", "{", ""}) {
    const Folder folder(damaged);
    CHECK_THROWS_AS(folder.ends(), UserError);
    CHECK_THROWS_WITH(folder.ends(), Catch::Contains("generation_config.json"));
  }
}
