// SPDX-License-Identifier: Apache-2.0
#include "model/layers/attention_sinks.h"

namespace fettle::model {
namespace {

// Fused attention wants heads of a multiple of this.
constexpr std::int64_t kFeatures = 8;

at::Tensor one_token(const at::Tensor& like) {
  return at::zeros(
      {like.size(0), like.size(1), 1, like.size(3)}, like.options());
}

}  // namespace

AttentionInputs with_sink_token(
    const AttentionInputs& inputs, const at::Tensor& sinks, double scale) {
  const at::Tensor& q = inputs.query;
  // Two features carry the score: 1 / scale and what its type rounds off.
  const at::Tensor most = at::full({1}, 1.0 / scale, q.options());
  const at::Tensor rest =
      (1.0 / scale - most.to(at::kDouble)).to(q.scalar_type());
  const at::Tensor scores = sinks.to(q.scalar_type()).view({1, -1, 1, 1});
  const auto zeros = [&](const at::Tensor& like, std::int64_t features) {
    return at::zeros(
        {like.size(0), like.size(1), like.size(2), features}, like.options());
  };
  const at::Tensor query = at::cat(
      {q,
       scores.expand({q.size(0), q.size(1), q.size(2), 2}),
       zeros(q, kFeatures - 2)},
      3);
  const at::Tensor wide =
      at::cat({inputs.key, zeros(inputs.key, kFeatures)}, 3);
  at::Tensor sink = one_token(wide);
  sink.select(3, q.size(3)).copy_(most);
  sink.select(3, q.size(3) + 1).copy_(rest);
  return {
      at::cat({one_token(query), query}, 2),
      at::cat({sink, wide}, 2),
      at::cat({one_token(inputs.value), inputs.value}, 2)};
}

at::Tensor attend_with_sinks(
    const AttentionInputs& inputs, const at::Tensor& sinks, double scale) {
  const auto& [query, key, value] = inputs;
  const std::int64_t batch = query.size(0), kv_heads = key.size(1);
  const std::int64_t groups = query.size(1) / kv_heads;
  const at::Tensor logits =
      at::matmul(
          query.reshape({batch, kv_heads, groups, query.size(3)}),
          key.transpose(2, 3))
          .to(at::kFloat)
          .mul_(scale);
  const at::Tensor last = sinks.to(at::kFloat)
                              .view({1, kv_heads, groups, 1})
                              .expand({batch, kv_heads, groups, 1});
  const at::Tensor shares = at::softmax(at::cat({logits, last}, 3), 3)
                                .narrow(3, 0, key.size(2))
                                .to(value.scalar_type());
  return at::matmul(shares, value)
      .view({batch, query.size(1), 1, value.size(3)});
}

}  // namespace fettle::model
