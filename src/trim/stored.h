// SPDX-License-Identifier: Apache-2.0
// In which form a trim writes weights that another tool stored in few bits.
#pragma once

namespace fettle::trim {

enum class Stored {
  kPlain,  // by their values, in the type that loaders give them
  kKeep,   // codes and scales as they are (see kept_blocks.h)
};

}  // namespace fettle::trim
