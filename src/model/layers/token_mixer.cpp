// SPDX-License-Identifier: Apache-2.0
#include "model/layers/token_mixer.h"

#include "core/error.h"
#include "model/layers/attention.h"
#include "model/layers/gated_delta.h"
#include "model/layers/mamba.h"
#include "model/layers/short_conv.h"

namespace fettle::model {

at::Tensor token_mixer(
    const LayerContext& context,
    const LayerWeights& weights,
    const at::Tensor& x) {
  switch (context.shape().mixer) {
    case MixerKind::kAttention:
      return attention(context, weights, x);
    case MixerKind::kShortConv:
      return short_conv(context, weights, x);
    case MixerKind::kGatedDelta:
      return gated_delta(context, weights, x);
    case MixerKind::kMamba:
      return mamba(context, weights, x);
    case MixerKind::kNone:
      break;
  }
  throw InternalError("a layer without a mixer mixes nothing");
}

}  // namespace fettle::model
