// Second stages of the bias gradient.
//
// bias_fold: the gradient of a relative table from the sums (N, L, S) of the pairs of query and key that share its entries.
//
//   grid   (ceil(N * entries / kReduceThreads), 1, 1)
//   block  kReduceThreads threads             a thread an entry, its pairs in order
//
// bias_sum: tables added up in order, a thread an entry
#pragma once

#include "attention/tile.cuh"

namespace vdiff::attention {

constexpr int kReduceThreads = 128;

template <class = void>  // so that several units may hold it
__global__ void __launch_bounds__(kReduceThreads) bias_fold_kernel(SequenceAttentionBwd p, const float* sums) {
  const int64_t index = int64_t(blockIdx.x) * kReduceThreads + threadIdx.x;
  if (index >= p.N * p.dbias.entries) return;
  const int64_t n = divide(index, p.dbias.entries), entry = index - n * p.dbias.entries;
  float sum = 0;
  for (int64_t i = 0; i < p.L; ++i) {
    for (int64_t j = 0; j < p.S; ++j) {
      if (p.dbias.origin + p.dbias.query.at(i) + p.dbias.key.at(j) == entry) sum += sums[(n * p.L + i) * p.S + j];
    }
  }
  p.dbias.data[index] = sum;
}

// tables (count, size); sums (size).
template <class = void>
__global__ void __launch_bounds__(kReduceThreads) bias_sum_kernel(const float* tables, int64_t count, int64_t size, float* sums) {
  const int64_t index = int64_t(blockIdx.x) * kReduceThreads + threadIdx.x;
  if (index >= size) return;
  float sum = 0;
  for (int64_t table = 0; table < count; ++table) sum += tables[table * size + index];
  sums[index] = sum;
}

}  // namespace vdiff::attention
