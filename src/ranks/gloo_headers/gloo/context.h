// SPDX-License-Identifier: Apache-2.0
// What libtorch's headers call of Gloo, whose code is in libtorch itself.
// Declarations only: nothing here may be defined.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {

class UnboundBuffer;

}  // namespace transport
}  // namespace gloo
