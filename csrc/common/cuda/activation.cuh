// SiLU, and its derivative. For .cu files. No torch.
#pragma once

#include "common/cuda/ptx.cuh"

namespace vdiff {

__device__ inline float sigmoid(float u) {
  constexpr float kLog2E = 1.4426950408889634f;
  return ptx::reciprocal_approx(1 + ptx::exp2_approx(-kLog2E * u));
}

__device__ inline float activated(float u, bool silu) { return silu ? u * sigmoid(u) : u; }

// The derivative of `activated` at u.
__device__ inline float slope(float u, bool silu) {
  if (!silu) return 1;
  const float s = sigmoid(u);
  return s * (1 + u * (1 - s));
}

}  // namespace vdiff
