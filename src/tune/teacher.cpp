// SPDX-License-Identifier: Apache-2.0
#include "tune/teacher.h"

#include <fmt/format.h>

#include "artifact/tensor_file.h"
#include "io/durable.h"
#include "tune/part/state_tensors.h"

namespace fettle::tune {

namespace fs = std::filesystem;

TeacherFiles::TeacherFiles(
    const fs::path& folder, std::int64_t tokens, std::int64_t top)
    : folder_(folder / kTeacherFolder), tokens_(tokens), top_(top) {}

fs::path TeacherFiles::path(std::int64_t step) const {
  return folder_ / fmt::format("step-{:08}.safetensors", step);
}

void TeacherFiles::claim(const Json& identity) const {
  const fs::path file = folder_ / "run.json";
  if (fs::exists(file) && read_json(file, "tune") == identity) return;
  remove();
  fs::create_directories(folder_);
  io::replace_file(file, identity.dump(2) + "\n");
}

std::int64_t TeacherFiles::bytes_per_step() const {
  return tokens_ * (8 * top_ + 4);
}

bool TeacherFiles::has(std::int64_t step) const {
  return fs::exists(path(step));
}

void TeacherFiles::write(
    std::int64_t step, const sweep::TeacherRows& rows) const {
  artifact::TensorFile file;
  file.tensors["ids"] = rows.ids.to(at::kInt);
  file.tensors["log_probs"] = rows.log_probs.contiguous();
  file.tensors["rest"] = rows.rest.contiguous();
  // A file under its own name is whole.
  artifact::save_tensors(io::unfinished(path(step)), file);
  fs::rename(io::unfinished(path(step)), path(step));
}

sweep::TeacherRows TeacherFiles::read(std::int64_t step) const {
  const auto file = artifact::load_tensors(path(step), {.finite = true});
  const auto take = [&](const char* name, const ExpectedTensor& expected) {
    return take_tensor(file.tensors, name, expected);
  };
  // Sequences that nothing fits into any more are shorter.
  const at::Tensor ids = take("ids", {at::kInt, {-1, top_}});
  const std::int64_t tokens = ids.size(0);
  return {
      ids.to(at::kLong),
      take("log_probs", {at::kFloat, {tokens, top_}}),
      take("rest", {at::kFloat, {tokens}})};
}

void TeacherFiles::remove() const { io::remove_tree(folder_); }

}  // namespace fettle::tune
