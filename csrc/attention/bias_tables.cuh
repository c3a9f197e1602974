// Second stages of the bias gradient: a thread an entry, what adds up to it in order.
//
//   grid   (ceil(N * entries / kReduceThreads), 1, 1)
//   block  kReduceThreads threads
//   bytes  the partials, read once
//
// short_bias_sum: partials of sequences, heads innermost. bias_sum: whole tables.
#pragma once

#include "attention/tile.cuh"

namespace vdiff::attention {

constexpr int kReduceThreads = 128;

// partials (count, entries), the i-th of head i % N; dbias (N, entries).
template <class = void>  // so that several units may hold it
__global__ void __launch_bounds__(kReduceThreads)
    short_bias_sum_kernel(const float* partials, int64_t count, int64_t N, int64_t entries, float* dbias) {
  const int64_t index = int64_t(blockIdx.x) * kReduceThreads + threadIdx.x;
  if (index >= N * entries) return;
  const int64_t n = divide(index, entries), entry = index - n * entries;
  float sum = 0;
#pragma unroll 8
  for (int64_t i = n; i < count; i += N) sum += partials[i * entries + entry];
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
