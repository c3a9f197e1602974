// The threads that do something together: a warp or a block, or a part of one.
#pragma once

#include "common/cuda/launch_shape.h"

namespace vdiff {

__device__ inline int lane_id() { return threadIdx.x % kWarp; }

struct Team {
  int rank, size;
};

__device__ inline Team this_warp() { return {lane_id(), kWarp}; }
__device__ inline Team this_block() { return {int(threadIdx.x), int(blockDim.x)}; }

// One of the teams of `size` neighbouring threads, a power of two, that a block is.
__device__ inline Team this_team(int size) { return {int(threadIdx.x) % size, size}; }

// The sum of what the threads of each team give, the same in all of them; every thread of the block takes part. warps: kWarp
// floats of shared memory, that nothing else uses until all have met the block's next barrier.
__device__ inline float sum_of_team(float value, const Team& team, float* warps) {
  for (int apart = (team.size < kWarp ? team.size : kWarp) / 2; apart > 0; apart /= 2) {
    value += __shfl_xor_sync(~0u, value, apart);
  }
  if (team.size <= kWarp) return value;
  const int count = team.size / kWarp, warp = threadIdx.x / kWarp;
  if (lane_id() == 0) warps[warp] = value;
  __syncthreads();
  float sum = 0;
  for (int i = warp / count * count; i < (warp / count + 1) * count; ++i) sum += warps[i];
  return sum;
}

// The sums of the threads that are `columns` apart, in those of the first `columns`. Threads and columns are powers of two; every
// thread of the block takes part. shared: kCount floats a thread, free when this returns.
template <int kCount>
__device__ void sum_of_rows(float (&values)[kCount], int columns, float* shared) {
  const int thread = threadIdx.x, threads = blockDim.x;
#pragma unroll
  for (int i = 0; i < kCount; ++i) shared[i * threads + thread] = values[i];
  for (int half = threads / 2; half >= columns; half /= 2) {
    __syncthreads();
    if (thread >= half) continue;
#pragma unroll
    for (int i = 0; i < kCount; ++i) shared[i * threads + thread] = values[i] += shared[i * threads + thread + half];
  }
  __syncthreads();
}

}  // namespace vdiff
