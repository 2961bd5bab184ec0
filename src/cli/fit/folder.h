// SPDX-License-Identifier: Apache-2.0
// The folder of a fit: what its steps made lies there under their names, each
// with a key over all that it depends on, so that the same command goes on
// where it was stopped.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/data_flags.h"
#include "cli/session.h"
#include "core/json.h"

namespace fettle::cli {

using Arguments = std::vector<std::string>;

void append(Arguments& to, const Arguments& more);

// Data as all steps read it.
struct FitData {
  const std::vector<std::string>& files;
  const DataFlags& flags;
  std::int64_t tokens = 0;
  std::int64_t seq_len = 0;

  Arguments arguments() const;
};

struct FitStep {
  std::string name;     // of the folder that it makes
  std::string command;  // "analyze"
  Arguments arguments;
  Arguments needs = {};  // steps whose folders it reads
};

class FitFolder {
 public:
  // Makes the folder. `session` and `data` must outlive it.
  FitFolder(
      Session& session,
      std::filesystem::path folder,
      std::string model,
      const FitData& data);

  const std::filesystem::path& path() const { return folder_; }
  const std::string& model() const { return model_; }
  const FitData& data() const { return data_; }

  // Runs a step, unless its folder is there from the same inputs. False where
  // it was stopped.
  bool run(FitStep step);
  // What a step depends on, as one word; of a step that was run.
  std::string key_of(const std::string& name) const;
  // Removes a step's folder; what was noted of it stays.
  void drop(const std::string& name);

  // A result that is kept with the key of what it was made from, or null.
  Json noted(const std::string& name, const std::string& key) const;
  void note(const std::string& name, const std::string& key, Json result);

 private:
  std::string key(const FitStep& step) const;

  Session& session_;
  std::filesystem::path folder_;
  std::string model_;
  const FitData& data_;
};

}  // namespace fettle::cli
