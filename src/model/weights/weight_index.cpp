// SPDX-License-Identifier: Apache-2.0
#include "model/weights/weight_index.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <unordered_set>
#include <vector>

#include "core/error.h"
#include "model/family/text_part.h"
#include "model/weights/coded_finder.h"

namespace fettle::model {
namespace {

using Shape = std::vector<std::int64_t>;

constexpr std::string_view kPrefix = "model.";

[[noreturn]] void refuse(std::string_view name, std::string_view message) {
  throw UserError("weights", name, message);
}

void check_tensor(const io::TensorInfo& tensor, const Shape& expected) {
  require_shape(tensor, expected, "by config.json");
  using enum io::DType;
  if (tensor.dtype != kF32 && tensor.dtype != kBF16 && tensor.dtype != kF16) {
    const std::string_view type = io::name_of(tensor.dtype);
    refuse(
        tensor.name,
        fmt::format(
            "is stored as {}{}; Fettle reads F32, BF16 and F16{}",
            type,
            type.starts_with("F8") ? " (fp8)" : "",
            type.starts_with("F8")
                ? ", and fp8 as 'quantization_config' of config.json tells it"
                : ""));
  }
}

// What other software leaves beside a model's weights and what no loader of
// the family reads: value and reward heads, scales of a cache in fp8, tables
// that follow from config.json.
bool is_leftover(std::string_view name) {
  constexpr std::array<std::string_view, 3> kHeads = {
      "v_head.", "value_head.", "score."};
  constexpr std::array<std::string_view, 3> kScales = {
      ".k_scale", ".v_scale", ".kv_scale"};
  const auto begins = [&](std::string_view head) {
    return name.starts_with(head);
  };
  const auto ends = [&](std::string_view scale) {
    return name.ends_with(scale);
  };
  return std::ranges::any_of(kHeads, begins) ||
         std::ranges::any_of(kScales, ends) ||
         name.find(".rotary_emb.") != std::string_view::npos;
}

// The type that loaders give the weights, by config.json; bf16 where it names
// none.
at::ScalarType declared_type(const Json& config) {
  const JsonObject json(config, "weights", "config.json");
  const std::string name =
      json.string_or("dtype", json.string_or("torch_dtype", ""));
  if (name == "float32") return at::kFloat;
  if (name == "float16") return at::kHalf;
  const bool nested = name.empty() && json.has("text_config");
  return nested ? declared_type(config.at("text_config")) : at::kBFloat16;
}

// Where a weight lies among its expert's elements of a stack.
struct StackPart {
  Shape shape;              // of all elements of an expert
  std::int64_t first = 0;   // of them, the weight's first
  ElementSteps steps = {};  // from one row, or column, of it to the next
};

struct ExpertSize {
  std::int64_t width, hidden;
  std::int64_t inputs;  // of a neuron
};

struct StackShape {
  bool in_turns = false;   // a column of gate, then one of up
  bool turned = in_turns;  // rows are inputs, columns outputs
};

StackPart stack_part(
    const StackShape& order, const WeightId& id, const ExpertSize& size) {
  const auto [width, hidden, inputs] = size;
  const auto [in_turns, turned] = order;
  const std::int64_t step = in_turns ? inputs : 1;
  const bool up = id.role == Role::kExpertUp || id.role == Role::kExpertUpBias;
  const std::int64_t above = up ? (inputs - 1) * (in_turns ? 1 : width) : 0;
  if (is_expert_bias(id.role)) {
    return {{inputs * width}, above, {step, step}};
  }
  if (id.role == Role::kExpertDown) {
    if (turned) return {{width, hidden}, 0, {1, hidden}};
    return {{hidden, width}, 0, {width, 1}};
  }
  const std::int64_t all = inputs * width;
  if (turned) return {{hidden, all}, above, {step, all}};
  return {{all, hidden}, above * hidden, {hidden, 1}};
}

// Finds the tensors of one model, remembering which have been claimed.
class Finder {
 public:
  Finder(const ModelConfig& config, const io::Checkpoint& checkpoint)
      : config_(config),
        checkpoint_(checkpoint),
        coded_(
            parse_stored_source(
                JsonObject(config.json, "model", "config.json")),
            {checkpoint, [this](const auto& name) { return lookup(name); }},
            declared_type(config.json)) {
    const std::string name = weight_name(config, {Role::kEmbedTokens});
    bare_ = checkpoint.find(name) == nullptr &&
            checkpoint.find(bare_name(name)) != nullptr;
  }

  // The tensor of this name, else null. A bare model, one saved without its
  // head's class, has no "model." before its names.
  const io::TensorInfo* lookup(const std::string& name) const {
    return checkpoint_.find(bare_ ? bare_name(name) : std::string_view(name));
  }

  WeightIndex::Place find(const WeightId& id, const WeightRow& row) {
    const std::string name = expanded(row.name, id);
    const io::TensorInfo* tensor = lookup(name);
    if (!row.alias.empty()) {
      const auto* other = lookup(expanded(row.alias, id));
      if (tensor && other) refuse(other->name, "is also stored as " + name);
      if (!tensor) tensor = other;
    }
    if (const auto* stack = find_fused(row, id)) {
      if (tensor) refuse(stack->name, "is also stored as " + name);
      return slice(*stack, id, row);
    }
    if (!row.fused.empty() && is_expert_role(id.role)) {
      if (auto coded = coded_.find(wanted_blocks(id, row));
          coded.form != nullptr) {
        return claim(std::move(coded));
      }
    }
    const std::string packed_name = name + std::string(kPackedSuffix);
    if (const auto* packed = lookup(packed_name)) {
      if (tensor) refuse(packed->name, "is also stored as " + tensor->name);
      return find_packed(*packed, id);
    }
    const Shape shape = weight_shape(config_, id);
    if (auto coded = coded_.find({tensor ? tensor->name : name, tensor, shape});
        coded.form != nullptr) {
      return claim(std::move(coded));
    }
    if (!tensor) {
      refuse_missing(row.stacked_only ? expanded(row.fused, id) : name);
    }
    check_tensor(*tensor, stored_shape(config_, id));
    claimed_.insert(tensor);
    return {tensor, 0};
  }

  struct Rest {
    std::vector<std::string> left_out;
    std::vector<CarriedTensor> carried;
  };

  // Every tensor must be one of the model's, or carried, or known to change
  // nothing; the others are given back, by name.
  Rest check_rest() const {
    Rest rest;
    if (claimed_.size() == checkpoint_.size()) return rest;
    for (const io::TensorInfo* tensor : checkpoint_.tensors()) {
      if (claimed_.contains(tensor) || tensor->bytes() == 0) continue;
      if (is_tied_head(*tensor)) {
        check_tensor(*tensor, weight_shape(config_, {Role::kLmHead}));
      } else if (auto kept = carried_tensor(config_, checkpoint_, *tensor)) {
        rest.carried.push_back(std::move(*kept));
      } else if (is_leftover(tensor->name) || coded_.is_leftover(*tensor)) {
        rest.left_out.push_back(tensor->name);
      } else {
        const std::string stray = coded_.why_stray(*tensor);
        if (!stray.empty()) refuse(tensor->name, stray);
        refuse(
            tensor->name,
            fmt::format(
                "is no weight of a {} model with this config.json",
                config_.family));
      }
    }
    return rest;
  }

 private:
  // Of a neuron.
  std::int64_t inputs() const { return inputs_of(config_.activation); }

  std::string expanded(std::string_view pattern, const WeightId& id) const {
    return placed_name(config_.names, expand_name(pattern, id));
  }

  static std::string_view bare_name(std::string_view name) {
    return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
  }

  [[noreturn]] void refuse_missing(const std::string& name) const {
    const std::string_view wanted =
        bare_ ? bare_name(name) : std::string_view(name);
    const bool head = name == weight_name(config_, {Role::kLmHead});
    if (bare_ && head) {
      refuse(
          name,
          "is missing: the weights were saved without the head; save the whole "
          "model (AutoModelForCausalLM), or set 'tie_word_embeddings' to true "
          "in config.json if the embeddings are its head");
    }
    refuse(wanted, checkpoint_.why_missing(wanted));
  }

  bool is_tied_head(const io::TensorInfo& tensor) const {
    return config_.tie_word_embeddings &&
           tensor.name == weight_name(config_, {Role::kLmHead});
  }

  WeightIndex::Place claim(CodedFinder::Found coded) {
    claimed_.insert(coded.tensors.begin(), coded.tensors.end());
    return {coded.tensors.front(), 0, std::move(coded.form)};
  }

  WeightIndex::Place find_packed(
      const io::TensorInfo& tensor, const WeightId& id) {
    const Shape expected = weight_shape(config_, id);
    if (!role_info(id.role).is_packable()) {
      refuse(tensor.name, "is of a kind that is never packed");
    }
    if (tensor.dtype != io::DType::kU8 || tensor.shape.size() != 1) {
      refuse(tensor.name, "expected a row of U8, as packed weights are stored");
    }
    std::vector<std::byte> bytes(
        std::min<std::uint64_t>(tensor.bytes(), kPackedHeaderBytes));
    checkpoint_.read_range(tensor.name, 0, bytes);
    const PackedHeader header = parse_packed_header(
        bytes, static_cast<std::int64_t>(tensor.bytes()), tensor.name);
    if (Shape{header.rows, header.cols} != expected) {
      refuse(
          tensor.name,
          fmt::format(
              "expected shape [{}] by config.json, found [{}, {}]",
              fmt::join(expected, ", "),
              header.rows,
              header.cols));
    }
    claimed_.insert(&tensor);
    return {&tensor, 0, std::make_shared<const PackedForm>(tensor, header)};
  }

  const io::TensorInfo* find_fused(
      const WeightRow& row, const WeightId& id) const {
    if (row.fused.empty()) return nullptr;
    const auto* stack = lookup(expanded(row.fused, id));
    if (stack != nullptr || row.fused_alias.empty()) return stack;
    return lookup(expanded(row.fused_alias, id));
  }

  WeightIndex::Place slice(
      const io::TensorInfo& stack, const WeightId& id, const WeightRow& row) {
    return is_expert_role(id.role) ? slice_of_experts(stack, id, row)
                                   : half(stack, id);
  }

  // The part of a matrix [2I, H] that is an MLP's gate or up.
  WeightIndex::Place half(const io::TensorInfo& both, const WeightId& id) {
    Shape shape = weight_shape(config_, id);
    const std::int64_t width = shape.front();
    shape.front() *= 2;
    require_shape(both, shape, "by config.json");
    const std::int64_t above = is_up_role(id.role) ? width : 0;
    check_tensor(both, shape);
    claimed_.insert(&both);
    return {
        &both,
        static_cast<std::uint64_t>(above * shape.back()) *
            io::size_of(both.dtype)};
  }

  // Where an expert's matrix is in a stack of MXFP4, whose rows are outputs
  // even where those of plain stacks are inputs.
  WantedBlocks wanted_blocks(const WeightId& id, const WeightRow& row) const {
    const Shape shape = weight_shape(config_, id);
    if (shape.size() != 2) return {};
    const bool down = id.role == Role::kExpertDown;
    const bool up = id.role == Role::kExpertUp;
    const bool turns = row.order == StackOrder::kInterleaved && !down;
    return {
        .name = expanded(row.fused, id),
        .count = config_.layers[id.layer].num_experts(),
        .index = id.expert,
        .first = up ? (inputs() - 1) * (turns ? 1 : shape[0]) : 0,
        .step = turns ? inputs() : 1,
        .all = (down ? 1 : inputs()) * shape[0],
        .rows = shape[0],
        .cols = shape[1]};
  }

  // Some releases have columns for rows, which only the shape tells; where it
  // doesn't, loaders take rows.
  static StackShape shape_of(
      const io::TensorInfo& stack,
      StackOrder order,
      const WeightId& id,
      const ExpertSize& size) {
    if (order == StackOrder::kInterleaved) return {.in_turns = true};
    const auto fits = [&](const Shape& shape) {
      return stack.shape.size() == 3 && stack.shape[1] == shape[0] &&
             stack.shape[2] == shape[1];
    };
    constexpr StackShape kTurned{.turned = true};
    const bool turned = !fits(stack_part({}, id, size).shape) &&
                        fits(stack_part(kTurned, id, size).shape);
    return turned ? kTurned : StackShape{};
  }

  // The part of a stacked tensor that is one expert's gate, up or down.
  WeightIndex::Place slice_of_experts(
      const io::TensorInfo& stack, const WeightId& id, const WeightRow& row) {
    const LayerConfig& layer = config_.layers[id.layer];
    const std::int64_t width = layer.expert_widths.front();
    const bool ragged = std::any_of(
        layer.expert_widths.begin(), layer.expert_widths.end(), [&](auto w) {
          return w != width;
        });
    if (ragged) {
      refuse(
          stack.name,
          "stacks experts that differ in width; each needs its own tensor");
    }
    const ExpertSize size{width, config_.hidden_size, inputs()};
    const StackShape order = shape_of(stack, row.order, id, size);
    const StackPart part = stack_part(order, id, size);
    Shape shape = part.shape;
    shape.insert(shape.begin(), layer.num_experts());
    require_shape(stack, shape, "by config.json");
    const bool down = id.role == Role::kExpertDown;
    const std::int64_t above =
        id.role == Role::kExpertUp ? (inputs() - 1) * width : 0;
    if (!order.turned) {
      auto coded = coded_.find(
          stack, {id.expert, above, down ? config_.hidden_size : width});
      if (coded.form != nullptr) return claim(std::move(coded));
    }
    check_tensor(stack, shape);
    claimed_.insert(&stack);
    std::int64_t each = 1;
    for (const std::int64_t side : part.shape) each *= side;
    return {
        &stack,
        static_cast<std::uint64_t>(id.expert * each + part.first) *
            io::size_of(stack.dtype),
        {},
        part.steps};
  }

  const ModelConfig& config_;
  const io::Checkpoint& checkpoint_;
  CodedFinder coded_;
  std::unordered_set<const io::TensorInfo*> claimed_;
  bool bare_ = false;  // see lookup
};

}  // namespace

WeightIndex::WeightIndex(
    const ModelConfig& config, const io::Checkpoint& checkpoint) {
  Finder finder(config, checkpoint);
  std::unordered_map<Role, WeightRow> rows;
  for (const WeightRow& row : find_family(config.family).weights) {
    rows.emplace(row.role, row);
  }
  const std::vector<WeightId> ids = model_weights(config);
  places_.reserve(ids.size());
  for (const WeightId& id : ids) {
    places_.emplace(id, finder.find(id, rows.at(id.role)));
  }
  Finder::Rest rest = finder.check_rest();
  left_out_ = std::move(rest.left_out);
  carried_ = std::move(rest.carried);
}

const WeightIndex::Place& WeightIndex::at(const WeightId& id) const {
  const auto found = places_.find(id);
  FETTLE_ASSERT(found != places_.end());
  return found->second;
}

std::size_t WeightIndex::Hash::operator()(const WeightId& id) const {
  // Layer and expert are far below 2^24; the role is below 2^8.
  const auto key = static_cast<std::uint64_t>(id.role) |
                   static_cast<std::uint64_t>(id.layer + 1) << 8 |
                   static_cast<std::uint64_t>(id.expert + 1) << 32;
  return std::hash<std::uint64_t>{}(key);
}

}  // namespace fettle::model
