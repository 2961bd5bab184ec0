// SPDX-License-Identifier: Apache-2.0
// Named by libtorch's headers, which need a declaration only.
#pragma once

namespace gloo::transport {

class Device;

}  // namespace gloo::transport
