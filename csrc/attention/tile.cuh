// Rows of sequences on their way between global and shared memory, a warp's at a time. Kernels of this folder share it.
#pragma once

#include "attention/sequences.h"
#include "common/load.cuh"
#include "common/ptx.cuh"

namespace vdiff::attention {

template <int kValue>
struct IntTag {
  static constexpr int value = kValue;
};

constexpr int kWarp = 32;
constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

__device__ inline int lane_id() { return threadIdx.x % kWarp; }

// 32-bit division where both fit.
__host__ __device__ inline int64_t divide(int64_t a, int64_t b) {
  return ((a | b) >> 32) == 0 ? uint32_t(a) / uint32_t(b) : a / b;
}

// ------------------------------------------------------------------------------------------------------------ shared memory

template <class T>
constexpr int kPiece = 16 / sizeof(T);  // elements of 16 bytes

constexpr int kColumns = 16;  // columns come in chunks of 16: what a product goes by

__host__ __device__ inline int padded_columns(int64_t D) { return (int(D) + kColumns - 1) / kColumns * kColumns; }

// Elements from row to row: an odd number of 16-byte pieces, so that the pieces of eight rows lie in different banks.
template <class T>
__host__ __device__ int row_elements(int64_t D) {
  return padded_columns(D) + kPiece<T>;
}

template <class T>
struct Tile {
  T* data;
  int ld;  // row_elements<T>(D)

  __device__ T* row(int i) const { return data + i * ld; }
};

// ------------------------------------------------------------------------------------------------------- places of sequences

struct SequenceIndex {
  int64_t index[3], n;
};

// sequence: heads innermost.
__device__ inline SequenceIndex sequence_index(const SequenceAttention& p, int64_t sequence) {
  const int64_t place = divide(sequence, p.N);
  const int64_t line = divide(place, p.size[2]);
  const int64_t first = divide(line, p.size[1]);
  return {{first, line - first * p.size[1], place - line * p.size[2]}, sequence - place * p.N};
}

__device__ inline int64_t offset_of(const SequenceRows& rows, const SequenceIndex& s) {
  return s.index[0] * rows.stride[0] + s.index[1] * rows.stride[1] + s.index[2] * rows.stride[2] + s.n * rows.stride_n;
}

// ------------------------------------------------------------------------------------------------------------- moving rows

// The threads that move rows together: a warp or a block.
struct Team {
  int rank, size;
};

__device__ inline Team this_warp() { return {lane_id(), kWarp}; }
__device__ inline Team this_block() { return {int(threadIdx.x), int(blockDim.x)}; }

// `count` neighbouring sequences from `first` on, of which those below `total` are there.
struct SequenceRange {
  int64_t first, total;
  int count;

  __device__ bool there(int c) const { return first + c < total; }
};

// `rows` rows of each sequence from row `first` on; those from `length` on are not there. Of all columns, or of some.
struct RowRange {
  int64_t first, length;
  int rows;
  int first_column = 0, columns = 0;  // 0: all of D

  __device__ int64_t width(int64_t D) const { return columns == 0 ? D : min(int64_t(columns), D - first_column); }
};

// body(c, d, i, step): a thread moves the kBytes at column d of rows i, i + step, ... of sequence c. Neighbours take neighbouring
// columns, then sequences, so that a row of several heads is moved as one span.
template <int kBytes, class T, class Body>
__device__ void for_each_piece(Team team, int count, const RowRange& range, int64_t D, const Body& body) {
  constexpr int kElements = kBytes / sizeof(T);
  const int pieces = int(range.width(D)) / kElements;  // of a row
  const int width = count * pieces;
  const int threads = min(width, team.size);
  const int step = team.size / threads;
  const int i = team.rank / threads;
  if (i >= step) return;
  for (int column = team.rank % threads; column < width; column += threads) {
    const int c = column / pieces;
    body(c, range.first_column + (column - c * pieces) * kElements, i, step);
  }
}

// With the width in which p's rows can be moved.
template <class T, class Body>
__device__ void dispatch_vector_bytes(const SequenceAttention& p, const Body& body) {
  if (p.vector_bytes == 16) {
    body(IntTag<16>{});
  } else if (sizeof(T) == 4 || p.vector_bytes == 4) {
    body(IntTag<4>{});
  } else {
    body(IntTag<sizeof(T)>{});
  }
}

// The rows to rows c * range.rows + i of sX, zeros where they are not there. By cp.async, but for single halves.
template <class T>
__device__ void load_rows(
    Team team, const SequenceAttention& p, const SequenceRows& rows, const SequenceRange& sequences, const RowRange& range,
    const Tile<T>& sX) {
  dispatch_vector_bytes<T>(p, [&](auto bytes) {
    constexpr int kBytes = decltype(bytes)::value;
    for_each_piece<kBytes, T>(team, sequences.count, range, p.D, [&](int c, int d, int i, int step) {
      const bool there = sequences.there(c);
      const T* gX = static_cast<const T*>(rows.data) + d;
      if (there) gX += offset_of(rows, sequence_index(p, sequences.first + c));
      for (; i < range.rows; i += step) {
        const bool read = there && range.first + i < range.length;
        T* to = sX.row(c * range.rows + i) + d;
        const T* from = read ? gX + rows.row.at(range.first + i) : gX;
        if constexpr (kBytes >= 4) {
          ptx::copy_async<kBytes>(to, from, read);
        } else {
          *to = read ? *from : T{0};
        }
      }
    });
  });
  const int unused = padded_columns(p.D) - int(p.D);
  for (int e = team.rank; e < sequences.count * range.rows * unused; e += team.size) sX.row(e / unused)[p.D + e % unused] = T{0};
}

// The rows from those of sX; those that are not there are left alone.
template <class T>
__device__ void store_rows(
    Team team, const SequenceAttention& p, const SequenceRows& rows, const SequenceRange& sequences, const RowRange& range,
    const Tile<T>& sX) {
  dispatch_vector_bytes<T>(p, [&](auto bytes) {
    constexpr int kBytes = decltype(bytes)::value;
    struct alignas(kBytes) Piece {
      T elements[kBytes / sizeof(T)];
    };
    for_each_piece<kBytes, T>(team, sequences.count, range, p.D, [&](int c, int d, int i, int step) {
      if (!sequences.there(c)) return;
      T* gX = static_cast<T*>(rows.data) + offset_of(rows, sequence_index(p, sequences.first + c)) + d;
      for (; i < range.rows && range.first + i < range.length; i += step) {
        const Piece piece = *reinterpret_cast<const Piece*>(sX.row(c * range.rows + i) + d);
        *reinterpret_cast<Piece*>(gX + rows.row.at(range.first + i)) = piece;
      }
    });
  });
}

// ----------------------------------------------------------------------------------------------------------------- elements

__device__ inline void store_acc(float* to, float value) { *to = value; }
template <class T>
__device__ void store_acc(T* to, float value) {
  to->bits = uint16_t(ptx::pack<T>(value, value));
}

// Two neighbours, aligned to both.
__device__ inline void store_pair(float* to, float first, float second) { *reinterpret_cast<float2*>(to) = {first, second}; }
template <class T>
__device__ void store_pair(T* to, float first, float second) {
  *reinterpret_cast<uint32_t*>(to) = ptx::pack<T>(first, second);
}

// (a, b) -> (a cos - b sin, b cos + a sin)
__device__ inline float2 rotated(float2 pair, float2 angle) {
  return {pair.x * angle.x - pair.y * angle.y, pair.y * angle.x + pair.x * angle.y};
}

// Rotates the rows that are there in place. The team must have synchronised.
template <class T>
__device__ void rotate_rows(Team team, const SequenceAttention& p, int count, const RowRange& range, const Tile<T>& sX) {
  const int pairs = int(p.R) / 2;
  for (int e = team.rank; e < count * range.rows * pairs; e += team.size) {
    const int row = e / pairs, pair = e - row * pairs;
    const int64_t i = range.first + row % range.rows;
    if (i >= range.length) continue;
    T* x = sX.row(row) + 2 * pair;
    const float2 y = rotated({load_acc(x), load_acc(x + 1)}, p.rotary[i * pairs + pair]);
    store_pair(x, y.x, y.y);
  }
}

// The gradient of columns `column` and the next of a row, from that of the rotated row.
__device__ inline void rotate_back(const SequenceAttention& p, int64_t i, int column, float& first, float& second) {
  if (p.rotary == nullptr || column >= p.R || i >= p.L) return;
  const float2 angle = p.rotary[i * (p.R / 2) + column / 2];
  const float2 back = rotated({first, second}, {angle.x, -angle.y});
  first = back.x;
  second = back.y;
}

__device__ inline float load_bias(const BiasTable& bias, int64_t offset) {
  switch (bias.dtype) {
    case DType::Float32:
      return static_cast<const float*>(bias.data)[offset];
    case DType::Float16:
      return load_acc(static_cast<const Half*>(bias.data) + offset);
    case DType::BFloat16:
      return load_acc(static_cast<const BFloat16*>(bias.data) + offset);
    default:
      return float(static_cast<const double*>(bias.data)[offset]);
  }
}

}  // namespace vdiff::attention
