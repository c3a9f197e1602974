// Rows of sequences on their way between global and shared memory, a warp's at a time. Kernels of this folder share it.
#pragma once

#include "attention/cuda/sequences.h"
#include "common/cuda/ptx.cuh"
#include "common/cuda/shared_tile.h"
#include "common/cuda/team.cuh"
#include "common/dispatch.h"

namespace vdiff::attention {

// ------------------------------------------------------------------------------------------------------- places of sequences

struct SequenceIndex {
  int index[3], n;
};

// sequence: heads innermost. Of 64 bits, it is divided as such.
template <class Index>
__device__ SequenceIndex sequence_index(const SequenceAttention& p, Index sequence) {
  const Index place = p.by_heads.quotient(sequence);
  const Index line = p.by_size[2].quotient(place);
  const Index first = p.by_size[1].quotient(line);
  return {{int(first), int(line - first * p.size[1]), int(place - line * p.size[2])}, int(sequence - place * p.N)};
}

// `count` sequences on.
__device__ inline SequenceIndex neighbour(const SequenceAttention& p, SequenceIndex s, int count) {
  const auto carry = [](int& digit, const Divisor& base) {
    const int carried = base.quotient(digit);
    digit -= carried * base.value();
    return carried;
  };
  s.n += count;
  s.index[2] += carry(s.n, p.by_heads);
  s.index[1] += carry(s.index[2], p.by_size[2]);
  s.index[0] += carry(s.index[1], p.by_size[1]);
  return s;
}

__device__ inline int64_t offset_of(const SequenceRows& rows, const SequenceIndex& s) {
  return s.index[0] * rows.stride[0] + s.index[1] * rows.stride[1] + s.index[2] * rows.stride[2] + s.n * rows.stride_n;
}

// The one of `rows` rows at an offset, of lines of steps of 1; -1 where there is none.
__device__ inline int row_of(const RowLine& line, int offset, int rows) {
  if (offset < 0) return -1;
  const int line_step = int(line.line_step), length = line.length.value();
  const int which = line_step == 0 ? 0 : int(uint32_t(offset) / uint32_t(line_step));
  const int in_line = offset - which * line_step, row = which * length + in_line;
  return in_line < length && row < rows ? row : -1;
}

// ------------------------------------------------------------------------------------------------------------- moving rows

// Rows of each sequence from row `first` on; those from `length` on are not there.
struct RowRange {
  int first, length, rows;

  __device__ RowRange(int first, int64_t length, int rows) : first(first), length(int(length)), rows(rows) {}
  __device__ int there() const { return max(0, min(rows, length - first)); }
};

// From a lane's row, of `rows` that a warp moves at once, and piece, of `span` of each, in the order of the lanes, to those that let
// a quarter warp's pieces lie in different banks.
__device__ inline void spread_over_banks(int lane, int span, int rows, int& row, int& piece) {
  if (span <= 8 && (span & (span - 1)) == 0) {
    row = row * span % 8 + row * span / 8 + row / 8 * (8 - span);  // of each 8 rows, first those that are `span` apart
  } else if (8 < span && span < 16) {
    // Eight pieces of each row first, a quarter warp's, then what is left of them.
    const int rest = lane - 8 * rows;
    row = rest < 0 ? lane / 8 : rest / (span - 8);
    piece = rest < 0 ? lane % 8 : 8 + rest % (span - 8);
  }
}

// A thread's part in moving rows of `count` neighbouring sequences, a power of two of them, of all columns or of `columns` from
// first_column on: it has pieces of p.vector_bytes of every step-th row. Neighbours take neighbouring pieces, then sequences, so
// that a row of several heads is moved as one span; and where rows are short, such that a quarter warp's pieces lie in different
// banks.
template <class T>
class Mover {
 public:
  __device__ Mover(Team team, const SequenceAttention& p, int count, int first_column = 0, int columns = 0)
      : p(p), team_(team), count_(count), first_column_(first_column) {
    elements_ = int(p.vector_bytes) / int(sizeof(T));
    pieces_ = columns == 0 ? p.by_pieces.value() : min(columns, int(p.D) - first_column) / elements_;
    span_ = count * pieces_;
    // By the product of the pieces of a row and a power of two. Of some columns there is one sequence.
    const auto over_span = [&](int x) { return columns == 0 ? p.by_pieces.quotient(x) >> (31 - __clz(count)) : x / pieces_; };
    const int lane = team.rank % kWarp, warp = team.rank / kWarp;
    const int rows = max(1, over_span(kWarp));  // that a warp moves at once
    step_ = rows * (team.size / kWarp);
    int row = over_span(lane);
    piece_ = lane - row * span_;
    spread_over_banks(lane, span_, rows, row, piece_);
    row_ = row < rows ? warp * rows + row : kNoRow;
    own_.sequence = sequence_of(piece_);
    own_.column = first_column + (piece_ - own_.sequence * pieces_) * elements_;
  }

  // On to the sequences from that place on, of which so many are there.
  __device__ void go_to(const SequenceIndex& place, int there = 1) {
    there_ = there;
    own_.place = own_.sequence == 0 ? place : neighbour(p, place, min(own_.sequence, there - 1));
  }

  // The rows to those of sX, zeros where they are not there. By cp.async, but for single halves.
  __device__ void load(const SequenceRows& rows, const RowRange& range, const SharedTile<T>& sX) const {
    with_vector_bytes([&](auto bytes) {
      constexpr int kBytes = decltype(bytes)::value;
      for_each_piece([&](const Piece& piece) {
        const T* const gX = static_cast<const T*>(rows.data) + offset_of(rows, piece.place) + piece.column;
        T* to = sX.row(piece.sequence, range.rows, row_) + piece.column;
        uint32_t address = ptx::shared_address(to);
        const int end = piece.sequence < there_ ? range.there() : 0;
        RowCursor from(rows.row, range.first + row_, step_);
#pragma unroll 1
        for (int i = row_; i < range.rows; i += step_, from.go_on()) {
          if constexpr (kBytes >= 4) {
            ptx::copy_async<kBytes>(address, gX + from.offset, i < end);
            address += step_ * sX.ld * uint32_t(sizeof(T));
          } else {
            *to = i < end ? gX[from.offset] : T{0};
            to += step_ * sX.ld;
          }
        }
      });
    });
  }

  // Tiles of rows of one sequence, one after the other: where the thread's piece of the next one lies.
  struct Stream {
    const T* from;
    bool straight;
  };

  __device__ Stream stream(const SequenceRows& rows, int64_t length) const {
    const RowLine& line = rows.row;
    const bool one_step = length <= line.length.value() || line.line_step == line.length.value() * line.step;
    const T* const gX = static_cast<const T*>(rows.data) + offset_of(rows, own_.place) + own_.column;
    return {gX + row_ * line.step, one_step && p.vector_bytes == 16 && span_ <= kWarp};
  }

  // The stream's next rows. Where all lie at even steps, as they mostly do, the address goes on; elsewhere each is looked for.
  __device__ void load_next(const SequenceRows& rows, const RowRange& range, const SharedTile<T>& sX, Stream& stream) const {
    if (!stream.straight) return anew(range.first).load(rows, range, sX);
    const T* from = stream.from;
    const int step = ptx::opaque(step_, range.first), to = ptx::opaque(row_ * sX.ld + own_.column, range.first);
    const int64_t by = step * rows.row.step;
    uint32_t address = ptx::shared_address(sX.data) + to * uint32_t(sizeof(T));
    const int end = range.there();
#pragma unroll 1
    for (int i = row_; i < range.rows; i += step) {
      ptx::copy_async<16>(address, from, i < end);
      address += step * sX.ld * uint32_t(sizeof(T));
      from += by;
    }
    stream.from += range.rows * rows.row.step;
  }

  // The rows from those of sX; those that are not there are left alone.
  __device__ void store(const SequenceRows& rows, const RowRange& range, const SharedTile<T>& sX) const {
    with_vector_bytes([&](auto bytes) {
      constexpr int kBytes = decltype(bytes)::value;
      struct alignas(kBytes) Elements {
        T elements[kBytes / sizeof(T)];
      };
      for_each_piece([&](const Piece& piece) {
        T* const gX = static_cast<T*>(rows.data) + offset_of(rows, piece.place) + piece.column;
        const T* from = sX.row(piece.sequence, range.rows, row_) + piece.column;
        const int end = piece.sequence < there_ ? range.there() : 0;
        RowCursor to(rows.row, range.first + row_, step_);
#pragma unroll 1
        for (int i = row_; i < end; i += step_, to.go_on()) {
          *reinterpret_cast<Elements*>(gX + to.offset) = *reinterpret_cast<const Elements*>(from);
          from += step_ * sX.ld;
        }
      });
    });
  }

  // The same, computed where it is used, so that a loop before there need not keep it in registers. Of one sequence and all columns.
  __device__ Mover anew(int turn = 0) const {
    Mover mover({ptx::opaque(team_.rank, turn), team_.size}, p, 1);
    mover.go_to(own_.place);
    return mover;
  }

  // Zeros in the columns from D on that products go over.
  __device__ void clear_unused(const SharedTile<T>& sX, int rows) const {
    if (padded_columns(p.D) == p.D) return;
    p.D % kPiece<T> == 0 ? clear_unused_by<uint4>(sX, rows) : clear_unused_by<T>(sX, rows);
  }

 private:
  template <class Unit>
  __device__ void clear_unused_by(const SharedTile<T>& sX, int rows) const {
    const int unused = (padded_columns(p.D) - int(p.D)) * int(sizeof(T)) / int(sizeof(Unit));
    const int shift = kWarp - __clz(unused - 1);  // so many threads a row: the power of two that has enough
    const int unit = team_.rank & ((1 << shift) - 1);
    if (unit >= unused) return;
    for (int row = team_.rank >> shift; row < count_ * rows; row += team_.size >> shift) {
      const int c = count_ == 1 ? 0 : row / rows;
      reinterpret_cast<Unit*>(sX.row(c, rows, row - c * rows) + p.D)[unit] = Unit{};
    }
  }

  static constexpr int kNoRow = 1 << 20;  // beyond any range

  struct Piece {
    int sequence, column;
    SequenceIndex place;  // of the sequence
  };

  const SequenceAttention& p;
  Team team_;
  int count_, first_column_, elements_;  // elements of a piece
  int pieces_, span_;                    // pieces of a row: of one sequence, of all
  int piece_;                            // the first of the thread,
  Piece own_;                            // and what it is of
  int row_, step_;                       // its first row, and how far the next is
  int there_;                            // sequences that are there

  __device__ int sequence_of(int piece) const { return count_ == 1 ? 0 : p.by_pieces.quotient(piece); }

  template <class Body>
  __device__ void for_each_piece(const Body& body) const {
    if (row_ == kNoRow) return;
    Piece piece = own_;
#pragma unroll 1
    for (int at = piece_;;) {
      body(piece);
      at += kWarp;
      if (at >= span_) return;
      if (count_ > 1) {
        const int before = piece.sequence;
        piece.sequence = sequence_of(at);
        piece.place = neighbour(p, piece.place, min(piece.sequence, there_ - 1) - min(before, there_ - 1));
      }
      piece.column = first_column_ + (at - piece.sequence * pieces_) * elements_;
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

}  // namespace vdiff::attention
