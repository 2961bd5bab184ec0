// SPDX-License-Identifier: Apache-2.0
// What is given as a model and is none: named for what it is.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

#include "../temporary_folder.h"
#include "core/error.h"
#include "model/weights/model_folder.h"
#include "model/weights/model_reader.h"
#include "model_folder.h"
#include "sample_config.h"

using Catch::Contains;
using namespace fettle;
using namespace fettle::model;
namespace fs = std::filesystem;

namespace {

std::string why(const fs::path& path) {
  try {
    checked_model_folder(path);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a model folder is taken, others say what is missing") {
  const TemporaryFolder folder;
  CHECK_THAT(why(folder.path()), Contains("holds no config.json"));
  folder.write("config.json", "{}");
  CHECK_THAT(why(folder.path()), Contains("holds config.json, but no weights"));
  folder.write("model-00001-of-00002.safetensors");
  CHECK_THAT(
      why(folder.path()), Contains("found model-00001-of-00002.safetensors"));
  folder.write("model.safetensors.index.json");
  CHECK(why(folder.path()).empty());
  CHECK_THAT(
      why(folder.path() / "config.json"),
      Contains(
          "is one file of a model; give its folder, " +
          folder.path().string()));
}

TEST_CASE("what is no model is named for what it is") {
  const TemporaryFolder folder;
  CHECK_THAT(why(folder.path() / "none"), Contains("there is no such folder"));
  CHECK_THAT(
      why(folder.write("a/m.gguf")),
      Contains("is a GGUF file") && Contains("doesn't read"));
  CHECK_THAT(why(folder.path() / "a"), Contains("holds GGUF files"));
  CHECK_THAT(
      why(folder.write("b/pytorch_model.bin")), Contains("PyTorch weights"));
  folder.write("b/config.json", "{}");
  CHECK_THAT(
      why(folder.path() / "b"),
      Contains("has its weights in pytorch_model.bin") &&
          Contains("save_pretrained"));
  folder.write("c/adapter_config.json", "{}");
  CHECK_THAT(why(folder.path() / "c"), Contains("holds a PEFT adapter"));
  folder.write("d/adapter.json", "{}");
  folder.write("d/adapter.safetensors");
  CHECK_THAT(why(folder.path() / "d"), Contains("fettle merge BASE --adapter"));
  folder.write("e/scores.safetensors");
  CHECK_THAT(why(folder.path() / "e"), Contains("scores of fettle analyze"));
  folder.write("f/sub/config.json", "{}");
  CHECK_THAT(
      why(folder.path() / "f"),
      Contains("perhaps you mean " + (folder.path() / "f/sub").string()));
  CHECK_THAT(why(folder.write("g.txt")), Contains("is a file; a model is a"));
  CHECK_THAT(why("/dev/null"), Contains("found a device"));
  CHECK_THROWS_AS(ModelReader(folder.path()), UserError);
}

TEST_CASE("a model's name on the Hub is told from a path") {
  const TemporaryFolder cache;
  ::setenv("HF_HUB_CACHE", cache.path().c_str(), 1);
  CHECK_THAT(
      why("no-such-org/Some-30B-A3B"),
      Contains("hf download no-such-org/Some-30B-A3B --local-dir "
               "Some-30B-A3B"));
  CHECK_THAT(why("no/such/folder"), !Contains("hf download"));
  CHECK_THAT(why("./Some-30B"), !Contains("hf download"));
  const std::string model = "models--no-such-org--Some-30B-A3B";
  cache.write(model + "/snapshots/0a/config.json", "{}");
  CHECK_THAT(
      why("no-such-org/Some-30B-A3B"),
      Contains(
          "the Hugging Face cache has a model of this name: give " +
          (cache.path() / model / "snapshots/0a").string()));
  ::unsetenv("HF_HUB_CACHE");
}

TEST_CASE("the cache's folder of a model becomes its snapshot") {
  const TemporaryFolder cache;
  const fs::path model = cache.path() / "models--org--name";
  cache.write("models--org--name/snapshots/0a/config.json", "{}");
  const fs::path snapshot = model / "snapshots" / "0a";
  CHECK(resolved_model_folder(model) == snapshot);
  CHECK(resolved_model_folder(model / "") == snapshot);
  CHECK(resolved_model_folder(model / "snapshots") == snapshot);
  CHECK(resolved_model_folder(snapshot) == snapshot);
  CHECK(resolved_model_folder(cache.path()) == cache.path());
  CHECK_THAT(why(cache.path()), Contains("is a Hugging Face cache"));
  CHECK_THAT(why(model), Contains("give " + snapshot.string()));
  CHECK(model_name(snapshot) == "name");
  CHECK(model_name("/models/other") == "other");

  cache.write("models--org--name/snapshots/1b/config.json", "{}");
  CHECK(resolved_model_folder(model) == model);
  CHECK_THAT(why(model), Contains("the one of its snapshots that you mean"));
  cache.write("models--org--name/refs/main", "1b\n");
  CHECK(resolved_model_folder(model) == model / "snapshots" / "1b");
}
