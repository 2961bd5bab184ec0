// SPDX-License-Identifier: Apache-2.0
// A model as planning sees it: its configuration and how its weights lie, known
// from their headers, or assumed where there is no more than config.json. No
// weight is read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/family/stored_source.h"
#include "model/weights/model_reader.h"

namespace fettle::chain {

// Layers that are alike, sizes of weights included.
struct LayerKind {
  std::int64_t first = 0;  // the first of them
  std::int64_t count = 0;
};

class FitSource {
 public:
  // A model folder; weights may be missing, all or some. Throws UserError on
  // what has no config.json, and as ModelReader does.
  explicit FitSource(const std::filesystem::path& folder);

  const std::string& name() const { return name_; }
  const model::ModelConfig& config() const { return config_; }
  // Null where the weights are not all there.
  const model::ModelReader* reader() const { return reader_.get(); }

  // How a weight lies, in blocks where another tool stored it so.
  model::WeightForm form(const model::WeightId& id) const;
  const model::PackedHeader* packed(const model::WeightId& id) const;
  std::int64_t stored_bytes(const model::WeightId& id) const;
  // Of tensors that are copied and not read; 0 where not known.
  std::int64_t carried_bytes() const { return carried_bytes_; }

  const std::vector<LayerKind>& kinds() const { return kinds_; }
  // Which of them a layer is of.
  std::int64_t kind_of(std::int64_t layer) const { return kind_of_.at(layer); }
  // Neighbours that stay or go together where experts keep their blocks.
  std::int64_t block_unit() const;

  // What the figures rest on, a sentence each.
  const std::vector<std::string>& exact() const { return exact_; }
  const std::vector<std::string>& assumed() const { return assumed_; }

 private:
  struct Found;  // what a folder holds beside config.json

  static Found look(const std::filesystem::path& folder);
  void assume(const Found& found);
  void find_kinds();
  std::optional<model::BlockGrid> assumed_blocks(model::Role role) const;
  std::uint64_t signature(std::int64_t layer) const;

  std::string name_;
  std::unique_ptr<model::ModelReader> reader_;
  model::ModelConfig config_;
  model::StoredSource stored_;  // without a reader
  at::ScalarType type_ = at::kBFloat16;
  std::int64_t carried_bytes_ = 0;
  std::vector<LayerKind> kinds_;
  std::vector<std::int64_t> kind_of_;  // by layer
  std::vector<std::string> exact_, assumed_;
};

}  // namespace fettle::chain
