// Attention as the CUDA kernels see it: independent sequences of rows, whether a row is a frame or a pixel. A sequence is a place
// in `size` and a head; temporal attention has one per (B, H, W, N), spatial attention one per (B, T, 1, N). Strides in elements.
#pragma once

#include <cstdint>

#include "common/cuda/row_line.h"
#include "common/scalar.h"

namespace vdiff {

// The rows of D elements of every sequence in one tensor, or, for lse, of one.
struct SequenceRows {
  void* data;  // of an input: read only
  int64_t stride[3], stride_n;
  RowLine row;
};

// Entry (i, j) of head n lies at n * stride_n + query.at(i) + key.at(j), for a dense table and for a relative one.
struct BiasTable {
  const void* data;  // the entry (0, 0) of head 0; null: no bias
  DType dtype;
  int64_t stride_n;
  RowLine query, key;
};

// The gradient of that table, contiguous (N, entries): entry (i, j) of head n at n * entries + origin + query.at(i) + key.at(j).
struct BiasGradient {
  float* data;  // null: not wanted
  int64_t entries, origin;
  RowLine query, key;
  bool relative;  // several (i, j) share an entry
};

// A flag of each row i of the sequences at index[0].
struct RowFlags {
  const bool* data;  // null: none
  int64_t stride_index, stride_i;

  __host__ __device__ bool at(int64_t index, int64_t i) const { return data[index * stride_index + i * stride_i]; }
};

struct SequenceAttention {
  SequenceRows q, k, v;
  BiasTable bias;
  RowFlags focus_present;                     // (size[0], L): sees itself alone, and nobody else sees it
  RowFlags key_mask;                          // (size[0], S): may be attended; all may where there is none
  const float2* rotary;                       // (L, R/2) cosine and sine, null: none
  int64_t size[3], N, L, S, D, R;             // L queries, S keys a sequence
  Divisor by_heads, by_size[3];               // N, size
  int64_t vector_bytes;                       // what every row can be moved in: 16, 4 or an element
  Divisor by_pieces;                          // pieces of so many bytes of a row
  float scale;
  bool causal;

  __host__ __device__ int64_t sequences() const { return size[0] * size[1] * size[2] * N; }
};

struct SequenceAttentionFwd : SequenceAttention {
  SequenceRows out;
  SequenceRows lse;  // fp32; data null: not wanted
};

struct SequenceAttentionBwd : SequenceAttention {
  SequenceRows grad_out, out, lse, dq, dk, dv;
  BiasGradient dbias;
  bool shared_keys;  // the sequences of one size[1] share k and v: dk and dv are their sums
};

}  // namespace vdiff
