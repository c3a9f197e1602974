// What the softmax of a row of scores is made of. A row lies with four lanes of a warp (products.cuh).
#pragma once

#include "common/cuda/ptx.cuh"

namespace vdiff::attention {

// exp(x - shift). Subtracted first, so that the largest of a row is exactly 1: however large scores are, p = 1 weighs nothing but
// v.
__device__ inline float exp_above(float x, float shift) {
  constexpr float kLog2e = 1.4426950408889634f;
  return ptx::exp2_approx((x - shift) * kLog2e);
}

// Over the row of each of the lane's elements: combine's result of all of its keys.
template <class Combine>
__device__ float over_row(float x, const Combine& combine) {
  x = combine(x, __shfl_xor_sync(~0u, x, 1));
  return combine(x, __shfl_xor_sync(~0u, x, 2));
}

}  // namespace vdiff::attention
