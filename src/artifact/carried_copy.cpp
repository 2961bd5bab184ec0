// SPDX-License-Identifier: Apache-2.0
#include "artifact/carried_copy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "artifact/tensor_file.h"
#include "core/error.h"
#include "model/family/text_part.h"

namespace fettle::artifact {
namespace {

using model::CarriedKind;
using model::CarriedTensor;

constexpr std::uint64_t kPieceBytes = 16 << 20;

constexpr std::array<std::pair<Mtp, std::string_view>, 3> kNames{
    {{Mtp::kAuto, "auto"}, {Mtp::kKeep, "keep"}, {Mtp::kDrop, "drop"}}};

// Codes that mean something only by a "quantization_config", which no model
// that is written keeps. I64 are positions, which some vision towers store.
bool is_code(const io::TensorInfo& tensor) {
  using enum io::DType;
  return tensor.dtype != kF32 && tensor.dtype != kBF16 &&
         tensor.dtype != kF16 && tensor.dtype != kI64;
}

// The shape that loaders give a head's layer; no experts: the written model is
// Fettle's own, or has none.
HeadLayer::Shape shape_of_layers(const model::ModelConfig& target) {
  if (model::config_json(target).contains("fettle")) return {};
  for (const model::LayerConfig& layer : target.layers) {
    if (!layer.sparse) continue;
    return {
        layer.num_experts(), layer.expert_widths.front(), layer.shared_width};
  }
  return {};
}

}  // namespace

Mtp parse_mtp(std::string_view name) {
  for (const auto& [mtp, known] : kNames) {
    if (known == name) return mtp;
  }
  throw UserError(
      "mtp",
      name,
      "expected auto, keep or drop; change the option or leave it out");
}

std::string_view mtp_name(Mtp mtp) {
  for (const auto& [known, name] : kNames) {
    if (known == mtp) return name;
  }
  throw InternalError("a choice without a name");
}

CarriedCopy::CarriedCopy(
    const model::ModelReader& source, const model::ModelConfig& target, Mtp mtp)
    : source_(source), target_(target) {
  std::vector<const io::TensorInfo*> heads;
  for (const CarriedTensor& carried : source.carried()) {
    if (carried.kind == CarriedKind::kMtp) {
      heads.push_back(carried.tensor);
      continue;
    }
    if (is_code(*carried.tensor)) {
      throw UserError(
          "weights",
          carried.tensor->name,
          fmt::format(
              "is stored as {}, which can't be copied into a model that is "
              "written anew; start from an edition in bfloat16",
              io::name_of(carried.tensor->dtype)));
    }
    copy(*carried.tensor);
    add_part(carried.part);
  }
  if (!heads.empty()) add_heads(heads, mtp);
}

CarriedCopy::~CarriedCopy() = default;

void CarriedCopy::copy(const io::TensorInfo& tensor) {
  entries_.push_back({{tensor.name, tensor.dtype, tensor.shape}, {}});
}

void CarriedCopy::add_part(const std::string& part) {
  if (std::ranges::find(parts_, part) == parts_.end()) parts_.push_back(part);
}

void CarriedCopy::drop_heads(
    std::size_t tensors, Mtp mtp, const std::string& why) {
  if (mtp == Mtp::kKeep) {
    throw UserError(
        "mtp",
        "keep",
        fmt::format(
            "the head that predicts further tokens can't be kept: {}; leave it "
            "out with --mtp drop",
            why));
  }
  drops_ = true;
  note_ = fmt::format(
      "left out the {} tensors of the head that predicts further tokens{}; "
      "config.json says that there is none",
      tensors,
      why.empty() ? "" : " (" + why + ")");
}

void CarriedCopy::add_heads(
    const std::vector<const io::TensorInfo*>& heads, Mtp mtp) {
  if (mtp == Mtp::kDrop) return drop_heads(heads.size(), mtp, "");
  for (const io::TensorInfo* tensor : heads) {
    if (!is_code(*tensor)) continue;
    return drop_heads(
        heads.size(),
        mtp,
        fmt::format(
            "{} is stored as {}", tensor->name, io::name_of(tensor->dtype)));
  }
  const HeadLayer::Shape wanted = shape_of_layers(target_);
  std::vector<std::unique_ptr<HeadLayer>> layers;
  for (const std::string& prefix : head_layers(source_, heads)) {
    auto layer = std::make_unique<HeadLayer>(source_, heads, prefix);
    if (wanted.experts == 0 || layer->fits(wanted)) continue;
    const std::string why = layer->obstacle(wanted);
    if (!why.empty()) return drop_heads(heads.size(), mtp, why);
    layers.push_back(std::move(layer));
  }
  for (const io::TensorInfo* tensor : heads) {
    const bool replaced = std::ranges::any_of(
        layers, [&](const auto& one) { return one->replaces(tensor->name); });
    if (!replaced) copy(*tensor);
  }
  for (const auto& layer : layers) {
    for (MadeTensor& made : layer->cut(wanted)) {
      entries_.push_back({std::move(made.spec), std::move(made.make)});
    }
  }
  for (const CarriedTensor& carried : source_.carried()) {
    if (carried.kind == CarriedKind::kMtp) add_part(carried.part);
  }
  note_ = layers.empty()
              ? fmt::format(
                    "copied the {} tensors of the head that predicts further "
                    "tokens as they are",
                    heads.size())
              : fmt::format(
                    "cut the head that predicts further tokens to {} experts "
                    "of {} neurons too, which loaders expect: those of the "
                    "largest weights, since the head is not run on data. Its "
                    "drafts may be accepted less often; --mtp drop leaves it "
                    "out",
                    wanted.experts,
                    wanted.width);
  layers_ = std::move(layers);
}

std::vector<io::TensorSpec> CarriedCopy::specs() const {
  std::vector<io::TensorSpec> specs;
  for (const Entry& entry : entries_) specs.push_back(entry.spec);
  return specs;
}

std::int64_t CarriedCopy::bytes() const {
  std::int64_t bytes = 0;
  for (const Entry& entry : entries_) {
    bytes += static_cast<std::int64_t>(entry.spec.bytes());
  }
  return bytes;
}

void CarriedCopy::write(const Sink& sink) const {
  std::vector<std::byte> piece;
  for (const Entry& entry : entries_) {
    const std::string& name = entry.spec.name;
    if (entry.make) {
      const at::Tensor tensor = entry.make().contiguous();
      FETTLE_ASSERT(tensor.sizes().vec() == entry.spec.shape);
      sink(name, tensor_bytes(tensor));
      continue;
    }
    const std::uint64_t total = entry.spec.bytes();
    for (std::uint64_t at = 0; at < total; at += piece.size()) {
      piece.resize(std::min(kPieceBytes, total - at));
      source_.checkpoint().read_range(name, at, piece);
      sink(name, piece);
    }
  }
}

void CarriedCopy::change(Json& config) const {
  if (drops_) model::state_no_mtp(config);
}

void CarriedCopy::note(Reporter* reporter, const std::string& label) const {
  if (reporter != nullptr && !note_.empty()) {
    reporter->note(label + ": " + note_);
  }
}

}  // namespace fettle::artifact
