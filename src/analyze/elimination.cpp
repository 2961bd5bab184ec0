// SPDX-License-Identifier: Apache-2.0
#include "analyze/elimination.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "kernels/damped_cholesky.h"

namespace fettle::analyze {
namespace {

// Steps between matrix products: within a block only the diagonals and the
// removed rows are brought up to date, after it everything at once.
constexpr std::int64_t kBlock = 32;

class Eliminator {
 public:
  Eliminator(at::Tensor inverse, at::Tensor gram)
      : inverse_(std::move(inverse)),
        gram_(std::move(gram)),
        alive_(inverse_.size(0)) {
    std::iota(alive_.begin(), alive_.end(), 0);
  }

  Elimination run() {
    while (!alive_.empty()) {
      begin_block();
      while (steps_ < block_) step();
      end_block();
    }
    return std::move(result_);
  }

 private:
  void begin_block() {
    const auto n = static_cast<std::int64_t>(alive_.size());
    block_ = std::min(kBlock, n);
    steps_ = 0;
    u_ = at::empty({block_, n}, at::kDouble);
    a_ = at::empty({block_, n}, at::kDouble);
    r_ = at::empty({block_, n}, at::kDouble);
    inverse_diagonal_ = to_vector(inverse_.diagonal());
    gram_diagonal_ = to_vector(gram_.diagonal());
    removed_.assign(n, false);
  }

  static std::vector<double> to_vector(const at::Tensor& values) {
    const at::Tensor whole = values.contiguous();
    const double* data = whole.const_data_ptr<double>();
    return {data, data + whole.numel()};
  }

  double cost(std::size_t k) const {
    return 0.5 * std::max(gram_diagonal_[k], 0.0) / inverse_diagonal_[k];
  }

  std::size_t cheapest() const {
    std::size_t best = alive_.size();
    for (std::size_t k = 0; k < alive_.size(); ++k) {
      if (removed_[k]) continue;
      if (best == alive_.size() || cost(k) < cost(best)) best = k;
    }
    return best;
  }

  double* row(at::Tensor& matrix, std::int64_t i) const {
    return matrix.mutable_data_ptr<double>() +
           i * static_cast<std::int64_t>(alive_.size());
  }

  // Removes one neuron. With c = M^-1[:, j] and q = (V G V^T)[:, j]:
  //   M^-1 -= u u^T,  u = c / sqrt(c_j)
  //   V G V^T -= a r^T + r a^T,  a = c / c_j,  r = q - q_j a / 2
  void step() {
    const std::size_t j = cheapest();
    const std::size_t n = alive_.size();
    result_.order.push_back(alive_[j]);
    result_.costs.push_back(cost(j));
    double* u = row(u_, steps_);
    double* a = row(a_, steps_);
    double* r = row(r_, steps_);
    std::copy_n(row(inverse_, static_cast<std::int64_t>(j)), n, u);
    std::copy_n(row(gram_, static_cast<std::int64_t>(j)), n, r);
    for (std::int64_t s = 0; s < steps_; ++s) {
      const double* us = row(u_, s);
      const double* as = row(a_, s);
      const double* rs = row(r_, s);
      for (std::size_t i = 0; i < n; ++i) {
        u[i] -= us[j] * us[i];
        r[i] -= as[j] * rs[i] + rs[j] * as[i];
      }
    }
    const double pivot = u[j];
    const double root = std::sqrt(pivot);
    const double half = 0.5 * r[j];
    for (std::size_t i = 0; i < n; ++i) {
      a[i] = u[i] / pivot;
      u[i] /= root;
      r[i] -= half * a[i];
      inverse_diagonal_[i] -= u[i] * u[i];
      gram_diagonal_[i] -= 2 * a[i] * r[i];
    }
    removed_[j] = true;
    ++steps_;
  }

  void end_block() {
    std::vector<std::int64_t> kept;
    std::vector<std::int64_t> alive;
    for (std::size_t k = 0; k < alive_.size(); ++k) {
      if (removed_[k]) continue;
      kept.push_back(static_cast<std::int64_t>(k));
      alive.push_back(alive_[k]);
    }
    std::vector<std::int64_t> every(block_);
    std::iota(every.begin(), every.end(), 0);
    const at::Tensor u = packed(u_, every, kept);
    const at::Tensor a = packed(a_, every, kept);
    const at::Tensor r = packed(r_, every, kept);
    inverse_ = packed(inverse_, kept, kept).addmm_(u.t(), u, 1, -1);
    gram_ = packed(gram_, kept, kept)
                .addmm_(a.t(), r, 1, -1)
                .addmm_(r.t(), a, 1, -1);
    alive_ = std::move(alive);
  }

  // Those rows and columns, both ascending, of a contiguous matrix that is of
  // no more use: moved to the front of its own memory, since matrices of tens
  // of megabytes made anew in each block cost more than the products.
  static at::Tensor packed(
      const at::Tensor& matrix,
      const std::vector<std::int64_t>& rows,
      const std::vector<std::int64_t>& columns) {
    double* data = matrix.mutable_data_ptr<double>();
    double* to = data;
    for (const std::int64_t row : rows) {
      const double* from = data + row * matrix.size(1);
      for (std::size_t begin = 0, end = 0; begin < columns.size();
           begin = end) {
        while (end < columns.size() &&
               columns[end] - columns[begin] ==
                   static_cast<std::int64_t>(end - begin)) {
          ++end;
        }
        std::memmove(to, from + columns[begin], (end - begin) * sizeof(double));
        to += end - begin;
      }
    }
    const auto m = static_cast<std::int64_t>(rows.size());
    const auto n = static_cast<std::int64_t>(columns.size());
    return matrix.flatten().narrow(0, 0, m * n).view({m, n});
  }

  // [n, n] of the n neurons alive when the block began.
  at::Tensor inverse_, gram_;
  std::vector<std::int64_t> alive_;
  // [block, n] of the steps since then.
  at::Tensor u_, a_, r_;
  std::int64_t block_ = 0, steps_ = 0;
  // Up to date.
  std::vector<double> inverse_diagonal_, gram_diagonal_;
  std::vector<bool> removed_;
  Elimination result_;
};

}  // namespace

Elimination eliminate(const at::Tensor& inverse, const at::Tensor& gram) {
  const at::NoGradGuard no_grad;
  FETTLE_ASSERT(inverse.scalar_type() == at::kDouble);
  FETTLE_ASSERT(gram.scalar_type() == at::kDouble);
  return Eliminator(inverse.contiguous().clone(), gram.contiguous().clone())
      .run();
}

at::Tensor damped_inverse(const at::Tensor& moment, double damping) {
  const at::NoGradGuard no_grad;
  return at::cholesky_inverse(kernels::damped_cholesky(moment, damping));
}

at::Tensor elimination_scores(const Elimination& elimination) {
  at::Tensor scores = at::zeros(
      {static_cast<std::int64_t>(elimination.order.size())}, at::kDouble);
  double* data = scores.mutable_data_ptr<double>();
  float last = 0;
  for (std::size_t i = 0; i < elimination.order.size(); ++i) {
    const float next = std::max(
        std::nextafter(last, std::numeric_limits<float>::max()),
        std::numeric_limits<float>::min());
    last = std::max(static_cast<float>(elimination.costs[i]), next);
    data[elimination.order[i]] = last;
  }
  return scores;
}

}  // namespace fettle::analyze
