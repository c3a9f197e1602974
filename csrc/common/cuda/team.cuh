// The threads that do something together: a warp or a block.
#pragma once

#include "common/cuda/launch_shape.h"

namespace vdiff {

__device__ inline int lane_id() { return threadIdx.x % kWarp; }

struct Team {
  int rank, size;
};

__device__ inline Team this_warp() { return {lane_id(), kWarp}; }
__device__ inline Team this_block() { return {int(threadIdx.x), int(blockDim.x)}; }

}  // namespace vdiff
