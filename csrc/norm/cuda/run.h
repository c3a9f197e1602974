// The norm operators that have a CUDA kernel; the schemas are those of ops/library.py.
#pragma once

#include "common/checks.h"

namespace vdiff {

// x (B, T, H, W, C) -> (B, T, C, 2) acc: mean and biased variance over (H, W).
Tensor channel_stats_cuda(const Tensor& x);

}  // namespace vdiff
