// Rotary embedding of rows in shared memory, and of their gradients back.
#pragma once

#include "attention/cuda/sm80/row_copies.cuh"
#include "common/cuda/load.cuh"
#include "common/cuda/store.cuh"

namespace vdiff::attention {

// (a, b) -> (a cos - b sin, b cos + a sin)
__device__ inline float2 rotated(float2 pair, float2 angle) {
  return {pair.x * angle.x - pair.y * angle.y, pair.y * angle.x + pair.x * angle.y};
}

// Rotates the rows that are there, of `count` sequences, in place. The team must have synchronised.
template <class T>
__device__ void rotate_rows(Team team, const SequenceAttention& p, int count, const RowRange& range, const SharedTile<T>& sX) {
  const int pairs = int(p.R) / 2, there = range.there();
  for (int e = team.rank; e < count * there * pairs; e += team.size) {
    const int row = e / pairs, pair = e - row * pairs, c = row / there, i = row - c * there;
    T* x = sX.row(c, range.rows, i) + 2 * pair;
    const float2 y = rotated({load_acc(x), load_acc(x + 1)}, p.rotary[int64_t(range.first + i) * pairs + pair]);
    store_pair(x, y.x, y.y);
  }
}

// The gradient of columns `column` and the next of row i, from that of the rotated row.
__device__ inline void rotate_back(const SequenceAttention& p, int i, int column, float& first, float& second) {
  if (p.rotary == nullptr || column >= p.R || i >= p.L) return;
  const float2 angle = p.rotary[uint32_t(i) * uint32_t(p.R / 2) + column / 2];
  const float2 back = rotated({first, second}, {angle.x, -angle.y});
  first = back.x;
  second = back.y;
}

}  // namespace vdiff::attention
