// SPDX-License-Identifier: Apache-2.0
#include "artifact/head_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <numeric>
#include <optional>
#include <set>

#include "artifact/tensor_file.h"
#include "core/error.h"
#include "model/family/weight_table.h"

namespace fettle::artifact {
namespace {

using model::Role;

constexpr std::string_view kLayer = "model.layers.{l}.";
constexpr std::string_view kExpert = "{e}";

// A row's name behind its layer; empty where it lies in none.
std::string_view in_layer(std::string_view pattern) {
  return pattern.starts_with(kLayer) ? pattern.substr(kLayer.size())
                                     : std::string_view();
}

// The expert's number in `name`, where `pattern` has {e}; -1 where it has no
// {e}; nothing where they don't fit.
std::optional<std::int64_t> matched(
    std::string_view pattern, std::string_view name) {
  const std::size_t at = pattern.find(kExpert);
  if (at == std::string_view::npos) {
    return name == pattern ? std::optional<std::int64_t>(-1) : std::nullopt;
  }
  const std::string_view before = pattern.substr(0, at);
  const std::string_view behind = pattern.substr(at + kExpert.size());
  if (!name.starts_with(before)) return std::nullopt;
  std::int64_t expert = 0;
  const char* const last = name.data() + name.size();
  const auto [end, error] =
      std::from_chars(name.data() + before.size(), last, expert);
  if (error != std::errc() || std::string_view(end, last) != behind) {
    return std::nullopt;
  }
  return expert;
}

// What has as many as the layer has experts, neurons or shared neurons.
bool depends_on_shape(Role role) {
  const model::RoleInfo& info = model::role_info(role);
  return info.scope == model::RoleScope::kExpert ||
         info.scope == model::RoleScope::kRows || model::kSharedRoles.has(role);
}

// The axis along which an MLP's matrix has its neurons.
std::int64_t neuron_axis(Role role) {
  return model::is_down_role(role) ? 1 : 0;
}

at::Tensor index_tensor(const std::vector<std::int64_t>& values) {
  return at::tensor(values, at::kLong);
}

// Filled up with neurons of zero weights, which give zero.
at::Tensor filled(const at::Tensor& tensor, std::int64_t axis, std::int64_t n) {
  if (tensor.size(axis) == n) return tensor.contiguous();
  std::vector<std::int64_t> shape = tensor.sizes().vec();
  shape[axis] = n;
  at::Tensor result = at::zeros(shape, tensor.options());
  result.narrow(axis, 0, tensor.size(axis)).copy_(tensor);
  return result;
}

// The `count` largest, ascending; of equals the first.
std::vector<std::int64_t> largest(
    const std::vector<double>& values,
    std::int64_t begin,
    std::int64_t end,
    std::int64_t count) {
  std::vector<std::int64_t> order(end - begin);
  std::iota(order.begin(), order.end(), begin);
  std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) {
    return values[a] > values[b];
  });
  order.resize(std::min(count, end - begin));
  std::ranges::sort(order);
  return order;
}

bool is_plain(io::DType type) {
  return type == io::DType::kF32 || type == io::DType::kBF16 ||
         type == io::DType::kF16;
}

}  // namespace

std::vector<std::string> head_layers(
    const model::ModelReader& reader,
    const std::vector<const io::TensorInfo*>& tensors) {
  std::set<std::string> prefixes;
  const auto rows = model::find_family(reader.config().family).weights;
  for (const model::WeightRow& row : rows) {
    if (row.role != Role::kRouter) continue;
    const std::string_view name = in_layer(row.name);
    for (const io::TensorInfo* tensor : tensors) {
      if (!tensor->name.ends_with("." + std::string(name))) continue;
      prefixes.insert(
          tensor->name.substr(0, tensor->name.size() - name.size()));
    }
  }
  return {prefixes.begin(), prefixes.end()};
}

HeadLayer::HeadLayer(
    const model::ModelReader& reader,
    const std::vector<const io::TensorInfo*>& tensors,
    std::string prefix)
    : reader_(reader), prefix_(std::move(prefix)) {
  for (const io::TensorInfo* tensor : tensors) {
    if (tensor->name.starts_with(prefix_)) find(*tensor);
  }
  read_shape();
}

void HeadLayer::find(const io::TensorInfo& tensor) {
  const std::string_view name =
      std::string_view(tensor.name).substr(prefix_.size());
  for (const model::WeightRow& row :
       model::find_family(reader_.config().family).weights) {
    if (!depends_on_shape(row.role)) continue;
    if (const auto expert = matched(in_layer(row.name), name)) {
      found_[tensor.name] = {&tensor, row.role, *expert, false};
    } else if (!row.fused.empty() && in_layer(row.fused) == name) {
      found_[tensor.name] = {&tensor, row.role, -1, true};
    }
  }
}

void HeadLayer::read_shape() {
  std::set<std::int64_t> widths;
  std::set<std::int64_t> seen;
  for (const auto& [name, found] : found_) {
    const auto& shape = found.tensor->shape;
    const bool expert = model::is_expert_role(found.role);
    if (found.role == Role::kRouter) shape_.experts = shape.front();
    if (found.role == Role::kSharedDown) shape_.shared = shape.back();
    if (!expert || !model::is_down_role(found.role)) continue;
    widths.insert(shape.back());
    if (found.stacked) {
      for (std::int64_t e = 0; e < shape.front(); ++e) seen.insert(e);
    } else {
      seen.insert(found.expert);
    }
  }
  even_ = widths.size() == 1 && std::ssize(seen) == shape_.experts;
  if (!widths.empty()) shape_.width = *widths.begin();
}

bool HeadLayer::fits(const Shape& wanted) const {
  return shape_.experts == wanted.experts && shape_.width == wanted.width &&
         (shape_.shared == 0 || shape_.shared == wanted.shared) && even_;
}

std::string HeadLayer::obstacle(const Shape& wanted) const {
  if (!even_) return "its experts differ in width, or some are missing";
  if (wanted.experts > shape_.experts) {
    return fmt::format(
        "it has {} experts, fewer than the {} that the layers have",
        shape_.experts,
        wanted.experts);
  }
  if (wanted.shared < shape_.shared) {
    return fmt::format(
        "its shared experts have {} neurons, more than the {} that the layers "
        "have",
        shape_.shared,
        wanted.shared);
  }
  for (const auto& [name, found] : found_) {
    if (is_plain(found.tensor->dtype)) continue;
    return fmt::format(
        "{} is stored as {}", name, io::name_of(found.tensor->dtype));
  }
  return "";
}

bool HeadLayer::replaces(const std::string& name) const {
  return found_.contains(name);
}

at::Tensor HeadLayer::read(const io::TensorInfo& tensor) const {
  at::Tensor result = at::empty(
      tensor.shape, at::TensorOptions(scalar_type(tensor.dtype, tensor.name)));
  reader_.checkpoint().read(tensor.name, writable_bytes(result));
  return result;
}

at::Tensor HeadLayer::expert(Role role, std::int64_t expert) const {
  for (const auto& [name, found] : found_) {
    if (!model::is_expert_role(found.role)) continue;
    if (!found.stacked) {
      if (found.role == role && found.expert == expert) {
        return read(*found.tensor);
      }
      continue;
    }
    // A stack is found as its last row's role: gate and up share one.
    if (model::is_down_role(found.role) != model::is_down_role(role)) continue;
    const auto& shape = found.tensor->shape;
    at::Tensor one = at::empty(
        {shape[1], shape[2]},
        at::TensorOptions(scalar_type(found.tensor->dtype, name)));
    reader_.checkpoint().read_range(
        name,
        static_cast<std::uint64_t>(expert) * one.nbytes(),
        writable_bytes(one));
    if (model::is_down_role(role)) return one;
    const std::int64_t inputs = inputs_of_neuron();
    const std::int64_t width = shape[1] / inputs;
    const std::int64_t above = model::is_up_role(role) ? inputs - 1 : 0;
    return one.narrow(0, above * width, width);
  }
  throw InternalError(fmt::format(
      "{}: no {} of expert {}", prefix_, model::role_name(role), expert));
}

std::int64_t HeadLayer::inputs_of_neuron() const {
  return model::inputs_of(reader_.config().activation);
}

HeadLayer::Choice HeadLayer::choose(const Shape& wanted) const {
  std::vector<double> totals;
  std::vector<std::vector<double>> scores;
  for (std::int64_t e = 0; e < shape_.experts; ++e) {
    const auto norms = [&](Role role) {
      return expert(role, e).to(at::kFloat).norm(2, 1 - neuron_axis(role));
    };
    at::Tensor score = norms(Role::kExpertUp) * norms(Role::kExpertDown);
    if (inputs_of_neuron() > 1) score = norms(Role::kExpertGate) * score;
    score = score.to(at::kDouble).contiguous();
    const double* const begin = score.const_data_ptr<double>();
    scores.emplace_back(begin, begin + score.numel());
    totals.push_back(score.sum().item<double>());
  }
  // Routers with groups ask for as many experts in each.
  const std::int64_t groups = reader_.config().router.groups;
  const std::int64_t in_group = shape_.experts / groups;
  Choice choice;
  for (std::int64_t g = 0; g < groups; ++g) {
    for (const std::int64_t e : largest(
             totals,
             g * in_group,
             (g + 1) * in_group,
             wanted.experts / groups)) {
      choice.experts.push_back(e);
      choice.neurons.push_back(
          largest(scores[e], 0, std::ssize(scores[e]), wanted.width));
    }
  }
  return choice;
}

at::Tensor HeadLayer::cut_expert(
    const Choice& choice,
    Role role,
    std::int64_t kept,
    std::int64_t width) const {
  const std::int64_t axis = neuron_axis(role);
  const at::Tensor rows =
      expert(role, choice.experts[kept])
          .index_select(axis, index_tensor(choice.neurons[kept]));
  return filled(rows, axis, width);
}

at::Tensor HeadLayer::cut_inputs(
    const Choice& choice, std::int64_t kept, std::int64_t width) const {
  const at::Tensor up = cut_expert(choice, Role::kExpertUp, kept, width);
  if (inputs_of_neuron() == 1) return up;
  return at::cat({cut_expert(choice, Role::kExpertGate, kept, width), up});
}

at::Tensor HeadLayer::cut_stack(
    const Choice& choice, Role role, std::int64_t width) const {
  std::vector<at::Tensor> experts;
  for (std::int64_t e = 0; e < std::ssize(choice.experts); ++e) {
    experts.push_back(
        model::is_down_role(role) ? cut_expert(choice, role, e, width)
                                  : cut_inputs(choice, e, width));
  }
  return at::stack(experts);
}

std::vector<MadeTensor> HeadLayer::cut(const Shape& wanted) const {
  // Chosen when the first tensor is asked for, since it reads all experts.
  const auto chosen = std::make_shared<std::optional<Choice>>();
  const auto choice = [this, chosen, wanted]() -> const Choice& {
    if (!*chosen) *chosen = choose(wanted);
    return **chosen;
  };
  std::vector<MadeTensor> made;
  for (const auto& [name, found] : found_) {
    const Role role = found.role;
    io::TensorSpec spec{name, found.tensor->dtype, found.tensor->shape};
    const io::TensorInfo* const tensor = found.tensor;
    if (model::kSharedRoles.has(role)) {
      const std::int64_t axis = neuron_axis(role);
      spec.shape[axis] = wanted.shared;
      made.push_back({std::move(spec), [this, tensor, axis, wanted] {
                        return filled(read(*tensor), axis, wanted.shared);
                      }});
    } else if (!model::is_expert_role(role)) {
      // Some families store a correction as one row, [1, E].
      const std::int64_t axis =
          spec.shape.front() == shape_.experts ? 0 : std::ssize(spec.shape) - 1;
      spec.shape[axis] = wanted.experts;
      made.push_back({std::move(spec), [this, tensor, choice, axis] {
                        return read(*tensor).index_select(
                            axis, index_tensor(choice().experts));
                      }});
    } else if (found.stacked) {
      const bool down = model::is_down_role(role);
      spec.shape[0] = wanted.experts;
      spec.shape[down ? 2 : 1] = (down ? 1 : inputs_of_neuron()) * wanted.width;
      made.push_back({std::move(spec), [this, role, choice, wanted] {
                        return cut_stack(choice(), role, wanted.width);
                      }});
    } else if (found.expert < wanted.experts) {
      // Kept experts take the first numbers.
      spec.shape[neuron_axis(role)] = wanted.width;
      const std::int64_t kept = found.expert;
      made.push_back({std::move(spec), [this, role, kept, choice, wanted] {
                        return cut_expert(choice(), role, kept, wanted.width);
                      }});
    }
  }
  return made;
}

}  // namespace fettle::artifact
