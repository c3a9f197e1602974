// What the kernels of long sequences share: a block takes a tile of rows, 16 a warp, and goes over the columns of the scores tile
// by tile. Rows are queries and columns keys, or, for dk and dv, the other way round.
#pragma once

#include "attention/cuda/plan.h"
#include "attention/cuda/sm80/bias_entries.cuh"
#include "attention/cuda/sm80/rotary.cuh"
#include "attention/cuda/sm80/row_copies.cuh"
#include "attention/cuda/sm80/row_flags.cuh"
#include "attention/cuda/sm80/softmax.cuh"
#include "common/cuda/products.cuh"

namespace vdiff::attention {

// What the offsets of rows `first` to `last` lie between.
struct Span {
  int64_t low, high;

  __device__ Span(const RowLine& line, int first, int last) {
    const int length = line.length.value(), first_line = line.length.quotient(first), last_line = line.length.quotient(last);
    const bool one = first_line == last_line;
    const int64_t a = (one ? first - first_line * length : 0) * line.step;
    const int64_t b = (one ? last - last_line * length : length - 1) * line.step;
    const int64_t c = first_line * line.line_step, d = last_line * line.line_step;
    low = min(a, b) + min(c, d);
    high = max(a, b) + max(c, d);
  }
};

// Fills it for `rows` and the columns from `first_column` on; kAsync: of a float table by cp.async. Returns whether it has a window.
// The block must synchronise before and after.
template <int kColumns, bool kTransposed, bool kAsync = false>
__device__ bool load_bias_part(
    const SequenceAttention& p, int64_t n, const RowRange& rows, int first_column, const BiasPart<kColumns>& part) {
  const RowLine& row_line = kTransposed ? p.bias.key : p.bias.query;
  const RowLine& column_line = kTransposed ? p.bias.query : p.bias.key;
  const int columns = int(kTransposed ? p.L : p.S);
  const Span of_rows(row_line, rows.first, rows.first + rows.there() - 1);
  const Span of_columns(column_line, first_column, min(first_column + kColumns, columns) - 1);
  const int64_t low = of_rows.low + of_columns.low, entries = of_rows.high + of_columns.high - low + 1;
  const bool windowed = entries <= kBiasWindow;
  for (int c = threadIdx.x; c < kColumns; c += blockDim.x) {
    const int64_t offset = first_column + c < columns ? column_line.at(first_column + c) : of_columns.low;
    if (windowed) {
      part.window_offsets()[c] = int(offset - low) * int(sizeof(float));
    } else {
      part.table_offsets()[c] = offset;
    }
  }
  if (windowed) {
    const int64_t from = n * p.bias.stride_n + low;
    if (kAsync && p.bias.dtype == DType::Float32) {
      const float* const window = static_cast<const float*>(p.bias.data) + from;
      for (int e = threadIdx.x; e < entries; e += blockDim.x) {
        ptx::copy_async<4>(ptx::shared_address(part.window() + e), window + e, true);
      }
    } else {
      for (int e = threadIdx.x; e < entries; e += blockDim.x) part.window()[e] = load_bias(p.bias, from + e);
    }
  }
  return windowed;
}

// The lane's part in a tile of scores of one sequence.
template <class S, bool kTransposed>
struct ScoreRows {
  SequenceIndex place;
  int row[2];             // of the lane's two rows
  int64_t row_offset[2];  // into the head's bias table
  bool isolated[2], seen[2];  // of the two rows; seen: of keys

  template <class Index>
  __device__ ScoreRows(const SequenceAttention& p, Index sequence, int first_row) : place(sequence_index(p, sequence)) {
    const RowLine& line = kTransposed ? p.bias.key : p.bias.query;
    for (int half = 0; half < 2; ++half) {
      row[half] = first_row + lane_id() / 4 + 8 * half;
      const int64_t there = min(row[half], int(kTransposed ? p.S : p.L) - 1);
      row_offset[half] = p.bias.data == nullptr ? 0 : line.at(there);
      isolated[half] = p.focus_present.data != nullptr && p.focus_present.at(place.index[0], there);
      seen[half] = !kTransposed || p.key_mask.data == nullptr || p.key_mask.at(place.index[0], there);
    }
  }

  // body(score, column of the tile, half)
  template <class Body>
  __device__ static void for_each(float (&rS)[S::kN][4], const Body& body) {
#pragma unroll
    for (int n = 0; n < S::kN; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) body(rS[n][e], 8 * n + lane_id() % 4 * 2 + e % 2, e / 2);
    }
  }

  // s = scale * s + bias, -inf where column or row hides the other; rows that are not there get anything finite.
  // windowed: what load_bias_part returned.
  template <int kColumns>
  __device__ void finish(
      const SequenceAttention& p, float (&rS)[S::kN][4], int first_column, const BiasPart<kColumns>& part, bool windowed) const {
    add_bias(p, rS, part, windowed);
    hide<kColumns>(p, rS, first_column);
  }

  template <int kColumns>
  __device__ void add_bias(const SequenceAttention& p, float (&rS)[S::kN][4], const BiasPart<kColumns>& part, bool windowed) const {
    static_assert(kColumns == 8 * S::kN);
    if (p.bias.data == nullptr) {
      for_each(rS, [&](float& x, int, int) { x *= p.scale; });
    } else if (windowed) {
      const char* row_window[2];
      for (int half = 0; half < 2; ++half) {
        row_window[half] = reinterpret_cast<const char*>(part.window() + int(row_offset[half]));
      }
      for_each(rS, [&](float& x, int c, int half) {
        x = fmaf(x, p.scale, *reinterpret_cast<const float*>(row_window[half] + part.window_offsets()[c]));
      });
    } else {
      const int64_t head = place.n * p.bias.stride_n;
      for_each(rS, [&](float& x, int c, int half) {
        x = fmaf(x, p.scale, load_bias(p.bias, head + row_offset[half] + part.table_offsets()[c]));
      });
    }
  }

  template <int kColumns>
  __device__ void hide(const SequenceAttention& p, float (&rS)[S::kN][4], int first_column) const {
    if (p.key_mask.data != nullptr) {
      if constexpr (kTransposed) {
        for_each(rS, [&](float& x, int, int half) { x = seen[half] ? x : -INFINITY; });
      } else {
        constexpr int kWords = (kColumns + kWarp - 1) / kWarp;
        uint32_t bits[kWords];
#pragma unroll
        for (int word = 0; word < kWords; ++word) bits[word] = seen_keys(p, place.index[0], first_column + kWarp * word);
        for_each(rS, [&](float& x, int c, int) { x = bits[c / kWarp] >> c % kWarp & 1 ? x : -INFINITY; });
      }
    }
    const int columns = int(kTransposed ? p.L : p.S);
    const bool has_focus = p.focus_present.data != nullptr;
    if (first_column + kColumns <= columns && !p.causal && !has_focus) return;
    for_each(rS, [&](float& x, int c, int half) {
      const int column = first_column + c;
      const int i = kTransposed ? column : row[half], j = kTransposed ? row[half] : column;
      bool hidden = column >= columns || (p.causal && j > i);
      if (has_focus && !hidden && i != j) hidden = isolated[half] || p.focus_present.at(place.index[0], column);
      if (hidden) x = -INFINITY;
    });
  }
};

// Up to which key, exclusive, queries before end_query see any; at least 1. What lies behind the last of a padded text is left out.
__device__ inline int end_of_keys(const SequenceAttention& p, const SequenceIndex& place, int end_query) {
  const int end = p.causal ? min(int(p.S), end_query) : int(p.S);
  if (p.key_mask.data == nullptr) return end;
  int first = (end - 1) / kWarp * kWarp;
  while (first > 0 && seen_keys(p, place.index[0], first) == 0) first -= kWarp;
  return min(end, first + kWarp);
}

// The log-sum-exp or delta of a row, `absent` where the row is not there.
__device__ inline float row_value(
    const SequenceAttention& p, const SequenceRows& rows, const SequenceIndex& place, int64_t i, float absent) {
  return i < p.L ? static_cast<const float*>(rows.data)[offset_of(rows, place) + rows.row.at(i)] : absent;
}

// 0 where the row is masked, as far as it goes: its probabilities exp(-inf - 0) are zeros.
__device__ inline float shift_of(float highest) { return highest == -INFINITY ? 0.0f : highest; }

// Accumulators of kClass columns, by chunks of 16.
template <class S, int kClass>
using Accumulators = Chunk<S, false>[kClass / kColumns];

// rC += w b, as far as there are columns, at least kLeast; sB: the first. Synchronises the warp first, as scores does; the weights
// are there then.
template <class S, int kClass, int kLeast = 0, class T>
__device__ void accumulate(Accumulators<S, kClass>& rC, const Weights<S, T>& w, const T* sB, int ld, int columns) {
  __syncwarp();
#pragma unroll
  for (int c = 0; c < kClass / kColumns; ++c) {
    if (c * kColumns < kLeast || c * kColumns < columns) weigh<false, S>(rC[c], w, sB + c * kColumns, ld);
  }
}

}  // namespace vdiff::attention
