// The cut of a launch of the kernels of long sequences.
#pragma once

#include "attention/cuda/sm80/long_launch.h"
#include "attention/cuda/sm80/long_sequences.cuh"
#include "common/cuda/kernel_launch.cuh"

namespace vdiff::attention {

constexpr int64_t kManyBlocks = 512;  // enough for any GPU: what adds up is cut no further

// body(IntTag<kClass>{}) with the fewest columns of accumulators that hold D.
template <class Body>
void dispatch_class(int64_t D, const Body& body) {
  if (D <= 64) return body(IntTag<64>{});
  if (D <= 128) return body(IntTag<128>{});
  return body(IntTag<256>{});
}

// As many warps as shared memory lets a block have. bytes(warps, stages): of a block. length: of the rows of one sequence.
template <class Bytes>
LongPlan long_plan(int64_t length, const Bytes& bytes) {
  LongPlan plan{};
  plan.chunks = 1;
  plan.stages = 2;
  for (plan.warps = kLongWarps; plan.warps > 1 && bytes(plan.warps, plan.stages) > kLargestBlockBytes;) plan.warps /= 2;
  if (bytes(plan.warps, plan.stages) > kLargestBlockBytes) plan.stages = 1;
  plan.tiles = ceil_div(length, kWarpRows * plan.warps);
  return plan;
}

// Into how many chunks what adds up is cut, by the shape alone.
inline int64_t chunks_of(int64_t blocks, int64_t members) {
  return max_of<int64_t>(1, min_of(members, ceil_div(kManyBlocks, max_of<int64_t>(1, blocks))));
}

}  // namespace vdiff::attention
