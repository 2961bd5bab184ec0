// SPDX-License-Identifier: Apache-2.0
#include "model/layers/micro_batch.h"

#include <utility>

namespace fettle::model {

MicroBatch make_micro_batch(
    const ModelConfig& config, TokenBatch tokens, std::int64_t first_token) {
  MicroBatch batch{std::move(tokens), {}, first_token};
  for (const AttentionConfig& attention : config.attentions) {
    batch.rotary.push_back(rotary_tables(attention.rope, batch.tokens));
  }
  return batch;
}

MicroBatch make_parts_of_sequences(
    const ModelConfig& config,
    TokenBatch tokens,
    const std::vector<std::int64_t>& lengths) {
  MicroBatch batch{std::move(tokens), {}, 0};
  for (const AttentionConfig& attention : config.attentions) {
    batch.rotary.push_back(
        rotary_tables(attention.rope, batch.tokens, lengths));
  }
  return batch;
}

}  // namespace fettle::model
