// SPDX-License-Identifier: Apache-2.0
// What nearly every source with tensors reads, read once per build. No autograd
// headers: gcc instantiates their templates anew in every source that sees them
// (2 s each), so the few that name torch::autograd include them.
#pragma once
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "core_pch.h"
