// Attention as the CUDA kernels see it: independent sequences of rows, whether a row is a frame or a pixel. A sequence is a place
// in `size` and a head; temporal attention has one per (B, H, W, N), spatial attention one per (B, T, 1, N). Strides in elements.
#pragma once

#include <cstdint>

#include "common/scalar.h"

namespace vdiff {

// 32-bit division where both fit.
__host__ __device__ inline int64_t divide(int64_t a, int64_t b) {
  return ((a | b) >> 32) == 0 ? uint32_t(a) / uint32_t(b) : a / b;
}

// Divides by a number that the host knows, by a product and a shift (Granlund and Montgomery 1994). A division by any other is 20
// instructions, of 64 bits 100: a kernel that has many of them is read from memory more than it is run.
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(int64_t value) : value_(int(value > INT32_MAX ? INT32_MAX : value < 1 ? 1 : value)) {
    while ((int64_t(1) << shift_) < value_) ++shift_;
    factor_ = uint32_t((((uint64_t(1) << shift_) - value_) << 32) / value_ + 1);
  }

  // of n from 0 to 2^31 - 1
  __host__ __device__ int quotient(int n) const {
    return int((uint32_t(uint64_t(uint32_t(n)) * factor_ >> 32) + uint32_t(n)) >> shift_);
  }
  __host__ __device__ int64_t quotient(int64_t n) const { return n <= INT32_MAX ? quotient(int(n)) : n / value_; }
  __host__ __device__ int value() const { return value_; }

 private:
  int value_ = 1, shift_ = 0;
  uint32_t factor_ = 1;
};

// Where row i lies: rows come in lines of `length`, at even steps within one and from line to line.
struct RowLine {
  Divisor length;
  int64_t step, line_step;

  RowLine() = default;
  RowLine(int64_t length, int64_t step, int64_t line_step) : length(length), step(step), line_step(line_step) {}

  __host__ __device__ int64_t at(int i) const {
    const int line = length.quotient(i);
    return line * line_step + (i - line * length.value()) * step;
  }
};

// Goes over rows from row `first` on, `step` at a time, without a division at each.
class RowCursor {
 public:
  __device__ RowCursor(const RowLine& line, int first, int step)
      : step_(step), by_(step * line.step), offset(line.at(first)), length_(line.length.value()) {
    at_ = first - line.length.quotient(first) * length_;
    next_line_ = line.line_step - length_ * line.step;
  }

  __device__ void go_on() {
    offset += by_;
    for (at_ += step_; at_ >= length_; at_ -= length_) offset += next_line_;
  }

 private:
  int step_, length_, at_;  // in its line
  int64_t by_, next_line_;

 public:
  int64_t offset;  // of the row
};

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
