// SPDX-License-Identifier: Apache-2.0
// Named by libtorch's headers, which need nothing of it.
#pragma once
