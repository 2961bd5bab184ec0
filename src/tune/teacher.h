// SPDX-License-Identifier: Apache-2.0
// What a teacher says of every token that training will see, made by forward
// sweeps before the first step and kept on disk: a file a step. Runs that are
// killed go on with the files that are whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "core/json.h"
#include "model/causal_lm.h"
#include "sweep/head.h"
#include "sweep/sweep.h"

namespace fettle::tune {

// The teacher's folder in the folder of a run.
inline constexpr const char* kTeacherFolder = "teacher";

// A model ready to be asked, within its own plan of memory.
struct Teacher {
  std::unique_ptr<model::CausalLm> model;
  std::int64_t micro_batch_tokens = 0;
  sweep::SweepOptions sweep;
};

class TeacherFiles {
 public:
  // Files lie in FOLDER/teacher. At most `tokens` of a step, `top` of a token.
  TeacherFiles(
      const std::filesystem::path& folder,
      std::int64_t tokens,
      std::int64_t top);

  std::int64_t top() const { return top_; }
  // Keeps the files of an earlier run only where that was the same run.
  void claim(const Json& identity) const;
  std::int64_t bytes_per_step() const;
  bool has(std::int64_t step) const;
  void write(std::int64_t step, const sweep::TeacherRows& rows) const;
  // Throws UserError when the file is missing, damaged or of other sizes.
  sweep::TeacherRows read(std::int64_t step) const;
  void remove() const;  // all files

 private:
  std::filesystem::path path(std::int64_t step) const;

  std::filesystem::path folder_;
  std::int64_t tokens_;
  std::int64_t top_;
};

}  // namespace fettle::tune
