// What the steady kernels share: the kernels of short sequences for the usual calls, that is half types, a head dim that is known
// when this is compiled, and rows in pieces of 16 bytes at even steps.
//
// They are about instructions, of which the general kernels have four to five times as many, most of them to find rows. A warp has
// the same heads at several places, so that bias and mask are those of all of its places, and stay in registers; a lane's
// pieces of a row are found once; a place takes three products for each tensor; what lies in shared memory lies at
// constant offsets; and the rows of a warp's next place are on their way while this one is computed.
#pragma once

#include <initializer_list>

#include "attention/cuda/sm80/short_sequences.cuh"

namespace vdiff::attention {

// Rows at even steps, in bytes.
struct SteadyRows {
  char* data;
  int place[3];
  int64_t head, row;
};

// A lane's pieces of kCount neighbouring heads' rows: the same piece of every kStep-th row.
template <class T, int kRows, int kCount, int kD>
class SteadyLane {
 public:
  __device__ SteadyLane() {
    const int lane = lane_id();
    row_ = lane / kSpan;
    int piece = lane % kSpan;
    spread_over_banks(lane, kSpan, kStep, row_, piece);
    if (row_ >= kStep) row_ = kRows;  // none
    head_ = piece / kPieces;
    column_ = piece % kPieces * kPiece<T>;
  }

  // Of the heads from n on, at the place 0.
  __device__ char* first(const SteadyRows& rows, int n) const {
    return rows.data + (n + head_) * rows.head + row_ * rows.row + column_ * int(sizeof(T));
  }

  // sX: of a stage. Zeros behind the last row.
  __device__ void load(const char* from, int64_t row_bytes, int there, const SharedTile<T>& sX) const {
    const uint32_t to = ptx::shared_address(sX.row(head_, kRows, row_) + column_);
#pragma unroll
    for (int j = 0; j * kStep < kRows; ++j) {
      const bool is_mine = (j + 1) * kStep <= kRows ? row_ < kStep : row_ + j * kStep < kRows;
      if (is_mine) ptx::copy_async<16>(to + j * kStep * sX.ld * uint32_t(sizeof(T)), from, row_ + j * kStep < there);
      from += kStep * row_bytes;
    }
  }

  __device__ void store(char* to, int64_t row_bytes, int there, const SharedTile<T>& sX) const {
    const T* const from = sX.row(head_, kRows, row_) + column_;
#pragma unroll
    for (int j = 0; j * kStep < kRows; ++j) {
      if (row_ < kStep && row_ + j * kStep < there) {
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from + j * kStep * sX.ld);
      }
      to += kStep * row_bytes;
    }
  }

 private:
  static constexpr int kPieces = kD / kPiece<T>, kSpan = kCount * kPieces, kStep = kWarp / kSpan;
  int row_, head_, column_;
};

// Place `index` of a warp whose heads begin at n.
__device__ inline SequenceIndex place_index(const SequenceAttention& p, int place, int n) {
  const int line = p.by_size[2].quotient(place), first = p.by_size[1].quotient(line);
  return {{first, line - first * p.by_size[1].value(), place - line * p.by_size[2].value()}, n};
}

__device__ inline int64_t place_offset(const SteadyRows& rows, const SequenceIndex& i) {
  return int64_t(i.index[0]) * rows.place[0] + int64_t(i.index[1]) * rows.place[1] + int64_t(i.index[2]) * rows.place[2];
}

// What products read of a warp's rows beyond the last column, which nothing else writes.
template <int kD, int kRows, int kCount, class T>
__device__ void clear_beyond(std::initializer_list<SharedTile<T>> tiles) {
  if constexpr (kD % kColumns != 0) {
    for (const SharedTile<T>& sX : tiles) {
      for (int row = lane_id(); row < kCount * kRows; row += kWarp) {
        *reinterpret_cast<uint4*>(sX.row(row / kRows, kRows, row % kRows) + kD) = uint4{};
      }
    }
  }
}

// body(place, stage) for each place of a warp from `first` on, once load(place, stage), which begins its copies, has brought its
// rows; those of the next place are on their way meanwhile.
template <class Load, class Body>
__device__ void for_places(const SteadyPlan& plan, int first, const Load& load, const Body& body) {
  load(first, 0);
  ptx::copy_commit();
  int stage = 0;
#pragma unroll 1
  for (int place = first; place < plan.places; place += plan.step, stage ^= 1) {
    if (place + plan.step < plan.places) load(place + plan.step, stage ^ 1);
    ptx::copy_commit();
    ptx::copy_wait<1>();
    __syncwarp();
    body(place, stage);
    __syncwarp();
  }
}

// The bias of the heads from n on, which all of a warp's places have: a lane's elements.
template <class S, int kCount>
struct SteadyBias {
  static constexpr int kSequences = S::kPaired ? 2 : 1;  // of a tile
  Scores<S> of_tile[kCount / kSequences] = {};

  __device__ SteadyBias(const SequenceAttention& p, int n) {
    if (p.bias.data == nullptr) return;
#pragma unroll
    for (int c = 0; c < kCount; c += kSequences) add_bias(p, TileMask<S>(p, 0, n + c), of_tile[c / kSequences]);
  }

  // s = scale * s + bias, -inf where hidden, of the tile of the place's sequences from c on.
  __device__ void mask(const SequenceAttention& p, const SequenceIndex& place, int c, Scores<S>& rS) const {
#pragma unroll
    for (int m = 0; m < S::kM; ++m) {
#pragma unroll
      for (int j = 0; j < S::kN; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) rS[m][j][e] = fmaf(rS[m][j][e], p.scale, of_tile[c / kSequences][m][j][e]);
      }
    }
    hide_keys(p, TileMask<S>(p, place.index[0], place.n + c), rS);
  }
};

// -------------------------------------------------------------------------------------------------------------- on the host

// Whether these rows lie as the steady kernels take them.
inline bool is_steady(const SequenceAttention& p, const SequenceRows& rows, int64_t length) {
  const RowLine& row = rows.row;
  bool is_straight = length <= row.length.value() || row.line_step == row.length.value() * row.step;
  for (int i = 0; i < 3; ++i) {
    const int64_t bytes = rows.stride[i] * 2;
    is_straight = is_straight && (p.size[i] == 1 || (INT32_MIN <= bytes && bytes <= INT32_MAX));
  }
  return is_straight;
}

inline SteadyRows steady_rows(const SequenceAttention& p, const SequenceRows& rows) {
  SteadyRows steady = {static_cast<char*>(rows.data), {}, rows.stride_n * 2, rows.row.step * 2};
  for (int i = 0; i < 3; ++i) steady.place[i] = p.size[i] == 1 ? 0 : int(rows.stride[i] * 2);
  return steady;
}

}  // namespace vdiff::attention
