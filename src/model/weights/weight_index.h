// SPDX-License-Identifier: Apache-2.0
// Where each weight of a model lies in its checkpoint. Building it checks that
// every tensor is there once, of the right shape and a known type, and that
// nothing else is but what changes nothing or is carried. The names may be
// those of the bare model ("embed_tokens.weight" without "model."), as
// transformers reads them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/checkpoint.h"
#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/carried_tensors.h"
#include "model/weights/stored_form.h"

namespace fettle::model {

// Elements of the file from one row, or one column, of a weight to the next.
struct ElementSteps {
  std::int64_t row = 0;
  std::int64_t col = 0;
  bool operator==(const ElementSteps&) const = default;
};

class WeightIndex {
 public:
  struct Place {
    const io::TensorInfo* tensor = nullptr;  // held by the checkpoint
    std::uint64_t offset = 0;  // bytes into it where the weight begins
    std::shared_ptr<const StoredForm> form = {};  // null: plain
    // Of a plain weight within a stack; none: its elements lie side by side.
    // A vector is a row as well as a column.
    std::optional<ElementSteps> steps = {};

    ElementSteps steps_of(std::int64_t cols) const {
      return steps.value_or(ElementSteps{cols, 1});
    }

    const PackedHeader* packed() const {
      return form == nullptr ? nullptr : form->packed();
    }
  };

  // Throws UserError (see ModelReader). `checkpoint` must outlive the index.
  WeightIndex(const ModelConfig& config, const io::Checkpoint& checkpoint);

  const Place& at(const WeightId& id) const;

  // Names of tensors that are no weights of the model and change nothing, such
  // as "v_head.summary.weight".
  const std::vector<std::string>& left_out() const { return left_out_; }

  // By name. See carried_tensors.h.
  const std::vector<CarriedTensor>& carried() const { return carried_; }

 private:
  struct Hash {
    std::size_t operator()(const WeightId& id) const;
  };
  std::unordered_map<WeightId, Place, Hash> places_;
  std::vector<std::string> left_out_;
  std::vector<CarriedTensor> carried_;
};

}  // namespace fettle::model
