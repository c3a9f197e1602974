// steady_attention_fwd: short_attention_fwd (there: what is computed) of the usual calls: half types, a head dim that is known
// when this is compiled, rows in pieces of 16 bytes at even steps.
//
//   grid   (ceil(units * step / warps), 1, 1)  a warp has the same heads at every step-th place: 8 of them of a large call
//   block  32 * warps threads                  a warp is alone: no barrier of the block
//   smem   two stages of short_attention_fwd's warp; T = 16, D = 64: 13.5 KiB
//   bytes  the floor, as there                 flops as there: memory-bound on every GPU we build for
//   async  q, k and v of a warp's next place are on their way while this one is computed
//   limits strides of places below 2^31 bytes (is_steady); else short_attention_fwd
//
//   It is about instructions, of which the general kernel has 6 times as many: bias and mask are those of all of a warp's places, and
//   stay in registers; a lane's pieces of a row are found once; a place takes three products for each tensor; what lies in
//   shared memory lies at constant offsets.
#pragma once

#include "attention/cuda/sm80/instantiations.h"
#include "attention/cuda/sm80/short_sequences.cuh"
#include "common/cuda/launch.cuh"

namespace vdiff::attention {

// Rows at even steps, in bytes.
struct SteadyRows {
  char* data;
  int place[3];
  int64_t head, row;
};

struct SteadyCall {
  SteadyRows q, k, v, out;
  Divisor by_units;
};

// A lane's pieces of kCount neighbouring heads' rows: the same piece of every kStep-th row.
template <class T, int kRows, int kCount, int kD>
class SteadyLane {
 public:
  __device__ SteadyLane() {
    const int lane = lane_id();
    row_ = lane / kSpan;
    int piece = lane % kSpan;
    // As Mover's: a quarter warp's pieces lie in different banks.
    if constexpr (kSpan <= 8 && (kSpan & (kSpan - 1)) == 0) {
      row_ = row_ * kSpan % 8 + row_ * kSpan / 8 + row_ / 8 * (8 - kSpan);
    } else if constexpr (8 < kSpan && kSpan < 16) {
      const int rest = lane - 8 * kStep;
      row_ = rest < 0 ? lane / 8 : rest / (kSpan - 8);
      piece = rest < 0 ? lane % 8 : 8 + rest % (kSpan - 8);
    }
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

template <class T, int kRows, int kD>
__global__ void __launch_bounds__(kMaxWarps* kWarp, kRows == 32 ? 3 : 4)
    steady_attention_fwd_kernel(SequenceAttentionFwd p, SteadyCall call, SteadyPlan plan) {
  using S = ShortShape<kRows>;
  using Memory = ShortFwdMemory<T, kRows>;
  constexpr int kCount = kSteadyCount<kRows, kD>, kSequences = S::kPaired ? 2 : 1;  // of a unit, of a tile
  constexpr int kAllColumns = (kD + kColumns - 1) / kColumns * kColumns;
  extern __shared__ __align__(16) char shared_memory[];
  const int unit = blockIdx.x * plan.warps + threadIdx.x / kWarp, first = call.by_units.quotient(unit);
  if (first >= plan.step) return;
  const int n = (unit - first * plan.units) * kCount;
  const int64_t stage_bytes = Memory(shared_memory, kCount, kD).end - shared_memory;
  char* const own = shared_memory + threadIdx.x / kWarp * 2 * stage_bytes;
  const int queries = int(p.L), keys = int(p.S);

  const SteadyLane<T, kRows, kCount, kD> lane;
  const char* const q = lane.first(call.q, n);
  const char* const k = lane.first(call.k, n);
  const char* const v = lane.first(call.v, n);
  char* const out = lane.first(call.out, n);
  const auto index_of = [&](int place) {
    const int line = p.by_size[2].quotient(place), first = p.by_size[1].quotient(line);
    return SequenceIndex{{first, line - first * p.by_size[1].value(), place - line * p.by_size[2].value()}, n};
  };
  const auto at = [&](const SteadyRows& rows, const SequenceIndex& i) {
    return int64_t(i.index[0]) * rows.place[0] + int64_t(i.index[1]) * rows.place[1] + int64_t(i.index[2]) * rows.place[2];
  };
  const auto load = [&](int place, char* stage) {
    const Memory shared(stage, kCount, kD);
    const SequenceIndex index = index_of(place);
    lane.load(q + at(call.q, index), call.q.row, queries, shared.sQ);
    lane.load(k + at(call.k, index), call.k.row, keys, shared.sK);
    lane.load(v + at(call.v, index), call.v.row, keys, shared.sV);
  };

  if constexpr (kAllColumns > kD) {
    // What products read beyond the last column, in both stages, and nothing else writes.
    for (int stage = 0; stage < 2; ++stage) {
      const Memory shared(own + stage * stage_bytes, kCount, kD);
      for (int row = lane_id(); row < kCount * kRows; row += kWarp) {
        for (const SharedTile<T>& sX : {shared.sQ, shared.sK, shared.sV}) {
          *reinterpret_cast<uint4*>(sX.row(row / kRows, kRows, row % kRows) + kD) = uint4{};
        }
      }
    }
  }
  Scores<S> rBias[kCount / kSequences] = {};
  if (p.bias.data != nullptr) {
#pragma unroll
    for (int c = 0; c < kCount; c += kSequences) add_bias(p, TileMask<S>(p, 0, n + c), rBias[c / kSequences]);
  }

  load(first, own);
  ptx::copy_commit();
  int stage = 0;
#pragma unroll 1
  for (int place = first; place < plan.places; place += plan.step, stage ^= 1) {
    if (place + plan.step < plan.places) load(place + plan.step, own + (stage ^ 1) * stage_bytes);
    ptx::copy_commit();
    ptx::copy_wait<1>();
    __syncwarp();
    const Memory shared(own + stage * stage_bytes, kCount, kD);
    const SequenceIndex index = index_of(place);
    if (p.rotary != nullptr) {
      rotate_rows(this_warp(), p, kCount, RowRange(0, p.L, kRows), shared.sQ);
      rotate_rows(this_warp(), p, kCount, RowRange(0, p.S, kRows), shared.sK);
      __syncwarp();
    }
#pragma unroll
    for (int c = 0; c < kCount; c += kSequences) {
      const SharedTile<T> sQ{shared.sQ.row(c, kRows, 0), shared.sQ.ld};
      const SharedTile<T> sK{shared.sK.row(c, kRows, 0), shared.sK.ld};
      const T* const sV = shared.sV.row(c, kRows, 0);

      // (1) s = scale * q k^T + bias
      Scores<S> rP;
      scores<S>(rP, sQ, sK, kAllColumns);
#pragma unroll
      for (int m = 0; m < S::kM; ++m) {
#pragma unroll
        for (int j = 0; j < S::kN; ++j) {
#pragma unroll
          for (int e = 0; e < 4; ++e) rP[m][j][e] = fmaf(rP[m][j][e], p.scale, rBias[c / kSequences][m][j][e]);
        }
      }
      hide_keys(p, TileMask<S>(p, index.index[0], n + c), rP);

      // (2) p = softmax(s)
      const RowSums<S> sums = softmax_rows<S>(rP);
      store_lse<S>(p, sums, [&](int s) { return offset_of(p.lse, index) + (c + s) * p.lse.stride_n; });

      // (3) out = p v, where q was
      const Weights<S, T> weights(rP, nullptr);
      __syncwarp();
#pragma unroll
      for (int d = 0; d < kAllColumns; d += kColumns) {
        Chunk<S, false> rOut = {};
        weigh<false, S>(rOut, weights, sV + d, sQ.ld);
        for_each_pair(rOut, d, [&](int row, int column, float first, float second) {
          if (kAllColumns == kD || column < kD) store_pair(sQ.row(row) + column, first, second);
        });
      }
      __syncwarp();
    }
    lane.store(out + at(call.out, index), call.out.row, queries, shared.sQ);
    __syncwarp();
  }
}

// Whether the rows of all tensors lie as this takes them.
inline bool is_steady(const SequenceAttentionFwd& p) {
  const auto fits = [&](const SequenceRows& rows, int64_t length) {
    const RowLine& row = rows.row;
    bool is_straight = length <= row.length.value() || row.line_step == row.length.value() * row.step;
    for (int i = 0; i < 3; ++i) {
      const int64_t bytes = rows.stride[i] * 2;
      is_straight = is_straight && (p.size[i] == 1 || (INT32_MIN <= bytes && bytes <= INT32_MAX));
    }
    return is_straight;
  };
  return p.vector_bytes == 16 && fits(p.q, p.L) && fits(p.k, p.S) && fits(p.v, p.S) && fits(p.out, p.L);
}

// Whether it serves the call.
template <class T>
bool launch_steady_fwd(const SequenceAttentionFwd& p, const FwdPlan& plan, cudaStream_t stream) {
  const auto& steady = plan.steady_fwd;
  if (steady.instance == 0 || !is_steady(p)) return false;
  const auto rows_of = [&](const SequenceRows& rows) {
    SteadyRows steady = {static_cast<char*>(rows.data), {}, rows.stride_n * 2, rows.row.step * 2};
    for (int i = 0; i < 3; ++i) steady.place[i] = p.size[i] == 1 ? 0 : int(rows.stride[i] * 2);
    return steady;
  };
  const SteadyCall call = {rows_of(p.q), rows_of(p.k), rows_of(p.v), rows_of(p.out), Divisor(steady.cut.units)};
  dispatch_steady<T>(max_of(p.L, p.S), p.D, [&](auto rows, auto columns) {
    const auto kernel = steady_attention_fwd_kernel<T, decltype(rows)::value, decltype(columns)::value>;
    launch("steady_attention_fwd_kernel", kernel, steady.shape, stream, p, call, steady.cut);
  });
  return true;
}

}  // namespace vdiff::attention
