// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/global_gradients.h"

#include <algorithm>

namespace fettle::tune {

namespace {

using model::Role;

// sum [V, H] += d_logitsᵀ normed. Narrow types are multiplied some rows at a
// time: their product is a tensor beside the sum.
void add_head_product(at::Tensor& sum, const sweep::HeadGradView& view) {
  const at::ScalarType type = view.normed.scalar_type();
  const at::Tensor left = view.d_logits.to(type).t();
  if (type == at::kFloat) {
    sum.addmm_(left, view.normed);
    return;
  }
  for (const auto& [first, count] : row_pieces(sum.sizes())) {
    sum.narrow(0, first, count)
        .add_(at::mm(left.narrow(0, first, count), view.normed));
  }
}

}  // namespace

GlobalGradients::GlobalGradients(
    std::vector<model::WeightId> ids, const model::ModelConfig& config)
    : ids_(std::move(ids)), config_(&config) {}

bool GlobalGradients::has(Role role) const {
  return std::ranges::find(ids_, role, &model::WeightId::role) != ids_.end();
}

bool GlobalGradients::has_head() const {
  return has(head_is_embedding() ? Role::kEmbedTokens : Role::kLmHead);
}

void GlobalGradients::on_head_gradient(const sweep::HeadGradView& view) {
  const at::NoGradGuard no_grad;
  if (has_head()) {
    if (!head_.defined()) {
      head_ = at::zeros(
          {config_->vocab_size, config_->hidden_size},
          view.d_logits.options().dtype(at::kFloat));
    }
    add_head_product(head_, view);
  }
  if (has(Role::kFinalNorm)) {
    norm_ = norm_.defined() ? norm_.add_(view.d_final_norm)
                            : view.d_final_norm.to(at::kFloat, false, true);
  }
}

// On the CPU, where rows are added in the order of the tokens.
void GlobalGradients::on_embedding_gradient(
    const at::Tensor& ids, const at::Tensor& gradient) {
  if (!has(Role::kEmbedTokens)) return;
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = ids.cpu();
  if (all_rows_) {
    embedded_.index_add_(0, tokens, gradient.to(at::kCPU, at::kFloat));
    return;
  }
  at::Tensor places = at::empty_like(tokens);
  for (std::int64_t t = 0; t < tokens.size(0); ++t) {
    places.data_ptr<std::int64_t>()[t] =
        place_of_
            .emplace(
                tokens.const_data_ptr<std::int64_t>()[t],
                static_cast<std::int64_t>(place_of_.size()))
            .first->second;
  }
  const auto needed = static_cast<std::int64_t>(place_of_.size());
  const std::int64_t held = embedded_.defined() ? embedded_.size(0) : 0;
  if (needed > held) {
    at::Tensor more = at::zeros({needed, config_->hidden_size}, at::kFloat);
    if (held > 0) more.narrow(0, 0, held).copy_(embedded_);
    embedded_ = more;
  }
  embedded_.index_add_(0, places, gradient.to(at::kCPU, at::kFloat));
}

void GlobalGradients::for_each_head_sum(
    at::Device device, const sweep::SumVisitor& visit) {
  const auto zeros = at::dtype(at::kFloat).device(device);
  if (has_head()) {
    if (!head_.defined()) {
      head_ = at::zeros({config_->vocab_size, config_->hidden_size}, zeros);
    }
    visit(head_, ranks::Reduction::kSum);
  }
  if (!has(Role::kFinalNorm)) return;
  if (!norm_.defined()) norm_ = at::zeros({config_->hidden_size}, zeros);
  visit(norm_, ranks::Reduction::kSum);
}

void GlobalGradients::for_each_embedding_sum(const sweep::SumVisitor& visit) {
  if (!has(Role::kEmbedTokens)) return;
  if (!all_rows_) {
    embedded_ = at::zeros({config_->vocab_size, config_->hidden_size});
    all_rows_ = true;
  }
  visit(embedded_, ranks::Reduction::kSum);
}

void GlobalGradients::add_embeddings(
    const RowPiece& rows, at::Tensor& into) const {
  if (all_rows_) {
    into.add_(embedded_.narrow(0, rows.first, rows.count).to(into.device()));
    return;
  }
  std::vector<std::int64_t> tokens;
  std::vector<std::int64_t> places;
  for (auto at = place_of_.lower_bound(rows.first);
       at != place_of_.end() && at->first < rows.first + rows.count;
       ++at) {
    tokens.push_back(at->first - rows.first);
    places.push_back(at->second);
  }
  if (tokens.empty()) return;
  // No row twice: nothing depends on an order.
  into.index_add_(
      0,
      at::tensor(tokens, at::kLong).to(into.device()),
      embedded_.index_select(0, at::tensor(places, at::kLong))
          .to(into.device()));
}

at::Tensor GlobalGradients::rows(std::size_t i, const RowPiece& rows) const {
  const Role role = ids_[i].role;
  if (role == Role::kFinalNorm) {
    return norm_.defined() ? norm_.narrow(0, rows.first, rows.count).clone()
                           : at::zeros({rows.count}, at::kFloat);
  }
  const bool of_head = role == Role::kLmHead || head_is_embedding();
  at::Tensor piece =
      of_head && head_.defined()
          ? head_.narrow(0, rows.first, rows.count).clone()
          : at::zeros({rows.count, config_->hidden_size}, at::kFloat);
  if (role == Role::kEmbedTokens) add_embeddings(rows, piece);
  return piece;
}

double GlobalGradients::norm_squared(std::size_t i) const {
  double total = 0.0;
  for (const RowPiece& piece :
       row_pieces(model::weight_shape(*config_, ids_[i]))) {
    total += rows(i, piece).square_().sum(at::kDouble).item<double>();
  }
  return total;
}

void GlobalGradients::clear() {
  head_.reset();
  norm_.reset();
  embedded_.reset();
  all_rows_ = false;
  place_of_.clear();
}

}  // namespace fettle::tune
