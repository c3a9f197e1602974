// What the kernels of long sequences share: a block takes a tile of rows, 16 a warp, and goes over the columns of the scores tile by
// tile. Rows are queries and columns keys, or, for dk and dv, the other way round.
#pragma once

#include "attention/products.cuh"

namespace vdiff::attention {

constexpr int kLongWarps = 4;  // of a block at most
constexpr int kWarpRows = 16;

struct LongPlan {
  int64_t tiles;   // of rows, of one sequence
  int64_t chunks;  // into which the sequences that add up are cut
  int warps;       // of a block
  int stages;      // tiles of columns in shared memory
};

// Columns of the scores at a time. kClass: columns of D that a thread's accumulators hold.
template <class T, int kClass>
constexpr int kTileColumns = (sizeof(T) == 4 ? 32 : 64) / (kClass == 256 ? 2 : 1);

template <class T, int kClass>
using LongShape = Shape<kWarpRows, kTileColumns<T, kClass>>;

__device__ inline SequenceRange one_sequence(const SequenceAttention& p, int64_t sequence) { return {sequence, p.sequences(), 1}; }

// The lane's part in a tile of scores of one sequence.
template <class S, bool kTransposed>
struct ScoreRows {
  SequenceIndex place;
  int row[2];             // of the lane's two rows
  int64_t row_offset[2];  // into the bias table
  const bool* focus;      // null: none
  bool isolated[2];

  __device__ ScoreRows(const SequenceAttention& p, int64_t sequence, int64_t first_row) : place(sequence_index(p, sequence)) {
    const RowLine& line = kTransposed ? p.bias.key : p.bias.query;
    focus = p.focus_present == nullptr ? nullptr : p.focus_present + place.index[0] * p.stride_focus_b;
    for (int half = 0; half < 2; ++half) {
      row[half] = int(first_row) + lane_id() / 4 + 8 * half;
      const int64_t there = min(int64_t(row[half]), (kTransposed ? p.S : p.L) - 1);
      row_offset[half] = p.bias.data == nullptr ? 0 : place.n * p.bias.stride_n + line.at(there);
      isolated[half] = focus != nullptr && focus[there * p.stride_focus_i];
    }
  }

  // s = scale * s + bias, -inf where column or row hides the other; rows that are not there get anything finite.
  // sOffset: of each of the tile's columns, as column_offsets left them.
  __device__ void finish(const SequenceAttention& p, float (&rS)[S::kN][4], int64_t first_column, const int64_t* sOffset) const {
    const int64_t columns = kTransposed ? p.L : p.S;
    const bool edge = first_column + 8 * S::kN > columns || p.causal || focus != nullptr;
#pragma unroll
    for (int n = 0; n < S::kN; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int c = 8 * n + lane_id() % 4 * 2 + e % 2, half = e / 2;
        const int64_t column = first_column + c;
        float& x = rS[n][e];
        x *= p.scale;
        bool hidden = false;
        if (edge) {
          const int64_t i = kTransposed ? column : row[half], j = kTransposed ? row[half] : column;
          hidden = column >= columns || (p.causal && j > i);
          if (focus != nullptr && !hidden && i != j) hidden = isolated[half] || focus[column * p.stride_focus_i];
        }
        if (hidden) {
          x = -INFINITY;
        } else if (p.bias.data != nullptr) {
          x += load_bias(p.bias, row_offset[half] + sOffset[c]);
        }
      }
    }
  }
};

// Where the columns of a tile lie in the bias table. The block must synchronise before and after.
template <class S, bool kTransposed>
__device__ void column_offsets(const SequenceAttention& p, int64_t first_column, int64_t* sOffset) {
  if (p.bias.data == nullptr) return;
  const RowLine& line = kTransposed ? p.bias.query : p.bias.key;
  for (int c = threadIdx.x; c < 8 * S::kN; c += blockDim.x) {
    sOffset[c] = first_column + c < (kTransposed ? p.L : p.S) ? line.at(first_column + c) : 0;
  }
}

// The log-sum-exp or delta of a row, `absent` where the row is not there.
__device__ inline float row_value(const SequenceAttention& p, const SequenceRows& rows, const SequenceIndex& place, int64_t i, float absent) {
  return i < p.L ? static_cast<const float*>(rows.data)[offset_of(rows, place) + rows.row.at(i)] : absent;
}

// In base 2, and 0 where the row is fully masked: its probabilities exp2(-inf - 0) are zeros.
__device__ inline float shift_of(float lse) { return lse == -INFINITY ? 0.0f : lse * kLog2e; }

// Accumulators of kClass columns, by chunks of 16.
template <class S, int kClass>
using Accumulators = Chunk<S, false>[kClass / kColumns];

// rC += w b, as far as there are columns; sB: the first.
template <class S, int kClass, class T>
__device__ void accumulate(Accumulators<S, kClass>& rC, const Weights<S, T>& w, const T* sB, int ld, int columns) {
#pragma unroll
  for (int c = 0; c < kClass / kColumns; ++c) {
    if (c * kColumns < columns) weigh<false, S>(rC[c], w, sB + c * kColumns, ld);
  }
}

}  // namespace vdiff::attention
