// SPDX-License-Identifier: Apache-2.0
// What a model written from another keeps of the tensors that its source
// carries (model/weights/carried_tensors.h). Parts of a larger model are copied
// byte for byte. So are heads that predict further tokens, unless they are to
// be dropped, or other programs would take them for another shape: then their
// experts are cut along (head_layer.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "artifact/head_layer.h"
#include "core/json.h"
#include "core/progress.h"
#include "model/weights/model_reader.h"

namespace fettle::artifact {

// What to do with heads that predict further tokens. kAuto keeps them where
// the written model can be loaded with them.
enum class Mtp { kAuto, kKeep, kDrop };

// "auto", "keep", "drop". Throws UserError naming these.
Mtp parse_mtp(std::string_view name);
std::string_view mtp_name(Mtp mtp);

class CarriedCopy {
 public:
  // `target` is the configuration of the model that is written; both must
  // outlive this object. Throws UserError where a part can't be copied, and
  // where heads are to be kept and can't be.
  CarriedCopy(
      const model::ModelReader& source,
      const model::ModelConfig& target,
      Mtp mtp);
  ~CarriedCopy();
  CarriedCopy(CarriedCopy&&) = default;

  std::vector<io::TensorSpec> specs() const;
  std::int64_t bytes() const;
  // The beginnings of the names of the copied parts, each once.
  const std::vector<std::string>& parts() const { return parts_; }
  // Hands out the bytes of each tensor, in the order of specs(), in pieces.
  using Sink = std::function<void(
      const std::string& name, std::span<const std::byte> bytes)>;
  void write(const Sink& sink) const;
  // Takes dropped heads out of config.json.
  void change(Json& config) const;
  // Says what became of the heads, where the source has some, in a stage called
  // `label`; `reporter` may be null.
  void note(Reporter* reporter, const std::string& label) const;

 private:
  struct Entry {
    io::TensorSpec spec;
    std::function<at::Tensor()> make;  // none: copied as it is
  };

  void copy(const io::TensorInfo& tensor);
  void add_part(const std::string& part);
  void add_heads(const std::vector<const io::TensorInfo*>& heads, Mtp mtp);
  void drop_heads(std::size_t tensors, Mtp mtp, const std::string& why);

  const model::ModelReader& source_;
  const model::ModelConfig& target_;
  std::vector<Entry> entries_;
  std::vector<std::unique_ptr<HeadLayer>> layers_;
  std::vector<std::string> parts_;
  bool drops_ = false;
  std::string note_;
};

}  // namespace fettle::artifact
