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

__device__ inline int lane_id() { return threadIdx.x % kWarp; }

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

// Rows, one sequence's after the other's. gap: elements after those of a sequence, so that rows of neighbouring sequences that are
// moved as one span lie in different banks.
template <class T>
struct Tile {
  T* data;
  int ld;  // row_elements<T>(D)
  int gap = 0;

  __device__ T* row(int i) const { return data + i * ld; }
  __device__ T* row(int sequence, int rows, int i) const { return data + sequence * (rows * ld + gap) + i * ld; }
};

// ------------------------------------------------------------------------------------------------------- places of sequences

struct SequenceIndex {
  int index[3], n;
};

// sequence: heads innermost.
__device__ inline SequenceIndex sequence_index(const SequenceAttention& p, int64_t sequence) {
  const int64_t place = divide(sequence, p.N);
  const int64_t line = divide(place, p.size[2]);
  const int64_t first = divide(line, p.size[1]);
  return {{int(first), int(line - first * p.size[1]), int(place - line * p.size[2])}, int(sequence - place * p.N)};
}

__device__ inline int64_t offset_of(const SequenceRows& rows, const SequenceIndex& s) {
  return s.index[0] * rows.stride[0] + s.index[1] * rows.stride[1] + s.index[2] * rows.stride[2] + s.n * rows.stride_n;
}

// The one of `rows` rows at an offset, of lines of steps of 1; -1 where there is none.
__device__ inline int64_t row_of(const RowLine& line, int64_t offset, int64_t rows) {
  if (offset < 0) return -1;
  const int64_t which = line.line_step == 0 ? 0 : divide(offset, line.line_step);
  const int64_t in_line = offset - which * line.line_step, row = which * line.length + in_line;
  return in_line < line.length && row < rows ? row : -1;
}

// ------------------------------------------------------------------------------------------------------------- moving rows

// The threads that move rows together: a warp or a block.
struct Team {
  int rank, size;
};

__device__ inline Team this_warp() { return {lane_id(), kWarp}; }
__device__ inline Team this_block() { return {int(threadIdx.x), int(blockDim.x)}; }

// Rows of each sequence from row `first` on; those from `length` on are not there.
struct RowRange {
  int first, length, rows;

  __device__ RowRange(int first, int64_t length, int rows) : first(first), length(int(length)), rows(rows) {}
  __device__ int there() const { return max(0, min(rows, length - first)); }
};

// A thread's part in moving rows of `count` neighbouring sequences, of all columns or of `columns` from first_column on: it has
// pieces of p.vector_bytes of every step-th row. Neighbours take neighbouring pieces, then sequences, so that a row of several heads
// is moved as one span; and where rows are short, such that a quarter warp's pieces lie in different banks.
template <class T>
class Mover {
 public:
  __device__ Mover(Team team, const SequenceAttention& p, int count, int first_column = 0, int columns = 0)
      : p(p), team_(team), count_(count), first_column_(first_column) {
    const int width = columns == 0 ? int(p.D) : min(columns, int(p.D) - first_column);
    elements_ = int(p.vector_bytes) / int(sizeof(T));
    pieces_ = width / elements_;
    const int span = count * pieces_, lane = team.rank % kWarp, warp = team.rank / kWarp;
    const int rows = max(1, kWarp / span);  // that a warp moves at once
    step_ = rows * (team.size / kWarp);
    int row = lane / min(span, kWarp);
    piece_ = lane - row * span;
    if (8 % span == 0) {
      row = row * span % 8 + row * span / 8 + row / 8 * (8 - span);  // of each 8 rows, first those that are `span` apart
    } else if (8 < span && span < 16) {
      // Eight pieces of each row first, a quarter warp's, then what is left of them.
      const int rest = lane - 8 * rows;
      row = rest < 0 ? lane / 8 : rest / (span - 8);
      piece_ = rest < 0 ? lane % 8 : 8 + rest % (span - 8);
    }
    row_ = row < rows ? warp * rows + row : kNoRow;
  }

  // On to the sequences from `first` on, as far as there are any.
  __device__ void go_to(int64_t first) {
    first_ = first;
    place_ = place_of(piece_ / pieces_);
  }

  // On to the one sequence at that place.
  __device__ void go_to(const SequenceIndex& place) {
    first_ = 0;
    place_ = place;
  }

  // The rows to those of sX, zeros where they are not there. By cp.async, but for single halves.
  __device__ void load(const SequenceRows& rows, const RowRange& range, const Tile<T>& sX) const {
    with_vector_bytes([&](auto bytes) {
      constexpr int kBytes = decltype(bytes)::value;
      for_each_piece([&](int c, int d, const SequenceIndex& place, bool there) {
        const T* gX = static_cast<const T*>(rows.data) + offset_of(rows, place) + d;
        T* to = sX.row(c, range.rows, row_) + d;
        const int end = there ? range.there() : 0;
        for (int i = row_; i < range.rows; i += step_, to += step_ * sX.ld) {
          const bool read = i < end;
          const T* from = read ? gX + rows.row.at(range.first + i) : gX;
          if constexpr (kBytes >= 4) {
            ptx::copy_async<kBytes>(to, from, read);
          } else {
            *to = read ? *from : T{0};
          }
        }
      });
    });
  }

  // The rows from those of sX; those that are not there are left alone.
  __device__ void store(const SequenceRows& rows, const RowRange& range, const Tile<T>& sX) const {
    with_vector_bytes([&](auto bytes) {
      constexpr int kBytes = decltype(bytes)::value;
      struct alignas(kBytes) Piece {
        T elements[kBytes / sizeof(T)];
      };
      for_each_piece([&](int c, int d, const SequenceIndex& place, bool there) {
        T* gX = static_cast<T*>(rows.data) + offset_of(rows, place) + d;
        const T* from = sX.row(c, range.rows, row_) + d;
        const int end = there ? range.there() : 0;
        for (int i = row_; i < end; i += step_, from += step_ * sX.ld) {
          *reinterpret_cast<Piece*>(gX + rows.row.at(range.first + i)) = *reinterpret_cast<const Piece*>(from);
        }
      });
    });
  }

  // Zeros in the columns from D on that products go over.
  __device__ void clear_unused(const Tile<T>& sX, int rows) const {
    if (padded_columns(p.D) == p.D) return;
    p.D % kPiece<T> == 0 ? clear_unused_by<uint4>(sX, rows) : clear_unused_by<T>(sX, rows);
  }

 private:
  template <class Unit>
  __device__ void clear_unused_by(const Tile<T>& sX, int rows) const {
    constexpr int kElements = sizeof(Unit) / sizeof(T);
    const int unused = (padded_columns(p.D) - int(p.D)) / kElements;
    for (int e = team_.rank; e < count_ * rows * unused; e += team_.size) {
      const int row = e / unused, c = row / rows;
      *reinterpret_cast<Unit*>(sX.row(c, rows, row - c * rows) + p.D + (e - row * unused) * kElements) = Unit{};
    }
  }

  static constexpr int kNoRow = 1 << 20;  // beyond any range
  const SequenceAttention& p;
  Team team_;
  int count_, first_column_, elements_, pieces_;  // elements of a piece; pieces of a row of one sequence
  int piece_, row_, step_;                        // the first of the thread, and how far its next row is
  int64_t first_;
  SequenceIndex place_;  // of the sequence that piece_ is of

  __device__ SequenceIndex place_of(int c) const { return sequence_index(p, min(first_ + c, p.sequences() - 1)); }

  // body(sequence of the range, column, place, whether the sequence is there)
  template <class Body>
  __device__ void for_each_piece(const Body& body) const {
    const int span = count_ * pieces_;
    if (piece_ >= span) return;
    SequenceIndex place = place_;
    for (int piece = piece_;;) {
      const int c = count_ == 1 ? 0 : piece / pieces_;
      body(c, first_column_ + (piece - c * pieces_) * elements_, place, first_ + c < p.sequences());
      piece += kWarp;
      if (piece >= span) return;
      if (count_ > 1) place = place_of(piece / pieces_);
    }
  }

  template <class Body>
  __device__ void with_vector_bytes(const Body& body) const {
    if (p.vector_bytes == 16) {
      body(IntTag<16>{});
    } else if (sizeof(T) == 4 || p.vector_bytes == 4) {
      body(IntTag<4>{});
    } else {
      body(IntTag<sizeof(T)>{});
    }
  }
};

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

// Rotates the rows that are there, of `count` sequences, in place. The team must have synchronised.
template <class T>
__device__ void rotate_rows(Team team, const SequenceAttention& p, int count, const RowRange& range, const Tile<T>& sX) {
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
