// Second stages of the bias gradient: what adds up to an entry, always in the same order.
//
//   bytes  the partials, read once; latency is all that counts, so many are on their way at once
//
//   short_bias_sum: partials of sequences, heads innermost
//     grid   (ceil(N * entries / kWarp), 1, 1)
//     block  kSlices warps: a lane an entry, a warp a slice of its partials; then the first warp adds the slices
//     smem   kSlices * kWarp * 4 B
//   bias_sum: whole tables
//     grid   (ceil(N * entries / kReduceThreads), 1, 1)
//     block  kReduceThreads threads: a thread an entry
#pragma once

#include "attention/cuda/sequences.h"
#include "attention/cuda/sm80/blocks.h"
#include "common/cuda/team.cuh"

namespace vdiff::attention {

// partials (count, entries), the i-th of head i % N; dbias (N, entries).
template <class = void>  // so that several units may hold it
__global__ void __launch_bounds__(kSlices* kWarp)
    short_bias_sum_kernel(const float* partials, int64_t count, int64_t N, int64_t entries, float* dbias) {
  __shared__ float slices[kSlices][kWarp];
  const int slice = threadIdx.x / kWarp;
  const int64_t index = int64_t(blockIdx.x) * kWarp + lane_id();
  const bool there = index < N * entries;
  float sum = 0;
  if (there) {
    const int64_t n = divide(index, entries), entry = index - n * entries;
#pragma unroll 8
    for (int64_t i = n + slice * N; i < count; i += kSlices * N) sum += partials[i * entries + entry];
  }
  slices[slice][lane_id()] = sum;
  __syncthreads();
  if (slice != 0 || !there) return;
#pragma unroll
  for (int other = 1; other < kSlices; ++other) sum += slices[other][lane_id()];
  dbias[index] = sum;
}

// tables (count, size); sums (size).
template <class = void>
__global__ void __launch_bounds__(kReduceThreads) bias_sum_kernel(const float* tables, int64_t count, int64_t size, float* sums) {
  const int64_t index = int64_t(blockIdx.x) * kReduceThreads + threadIdx.x;
  if (index >= size) return;
  float sum = 0;
#pragma unroll 8
  for (int64_t table = 0; table < count; ++table) sum += tables[table * size + index];
  sums[index] = sum;
}

}  // namespace vdiff::attention
