// long_attention_fwd: out = softmax(scale * q k^T + bias) v, for sequences of any length.   contract: DESIGN.md 4
//
//   The pixels of a frame, or from them to a context, and frames where there are more than 32. The schedule is FlashAttention-2's
//   (Dao 2023): a tile of queries stays, tiles of keys and values pass, the softmax is rescaled as it goes.
//
//   grid   (sequences * ceil(L / rows), 1, 1)  x alone; tiles of one sequence beside each other, for they share keys in L2
//   block  32 * warps threads                  a warp has 16 queries: rows = 16 * warps, 64 where shared memory lets it
//   tile   16 * warps queries x kTileColumns keys: 64, float and D > 128: 32, both: 16
//   class  of half types one for D up to 48, 64, 80, 128, 160 and 256, where rows of all but the last have the pitch of the class
//          and products are unrolled over its columns, as far as there are any; float: 64, 128, 256
//   smem   (rows + 2 * kTileColumns) * (class, of 256 and float D up to a multiple of 16, + 8) * 2 B (struct LongFwdMemory); float:
//          (.., + 4) * 4 B + the weights; + 4.5 KiB for a bias: D = 64: 27 KiB, with a bias 31.5
//   bytes  4 L D elements a sequence from and to global memory where k and v stay in L2; k and v pass once for each tile of queries
//   flops  4 L S D a sequence                  compute-bound from L of some hundreds on
//   async  v of a tile is on its way while its scores are computed, k of the next, and what its scores read of a float bias, while
//          p v is: two barriers a tile
//   acc    fp32; float runs by FFMA from shared memory, by the same tiles
//
//   for each tile of keys:
//     s    = scale * q k^T + bias              (1)
//     m'   = max(m, rowmax(s)); p = exp(s - m')  (2)
//     l    = l * exp(m - m') + rowsum(p)       (3)
//     acc  = acc * exp(m - m') + p v           (4)
//   out = acc / l; lse = m + log(l)            (5)
#pragma once

#include "attention/cuda/sm80/instantiations.h"
#include "attention/cuda/sm80/long_sequences.cuh"
#include "common/cuda/launch.cuh"

namespace vdiff::attention {

// Whether the fragments of queries stay in registers: where there are some to spare, for others let a third block run, or
// accumulators. Of a narrow head they are few instructions.
template <int kClass>
constexpr bool kKeepsQueries = 64 < kClass && kClass < 256;

template <class T, int kClass>
__global__ void __launch_bounds__(kLongWarps* kWarp, kClass <= 64 ? 3 : 2)
    long_attention_fwd_kernel(SequenceAttentionFwd p, LongPlan plan) {
  using Memory = LongFwdMemory<T, kClass>;
  using S = typename Memory::S;
  constexpr int kKeys = Memory::kKeys, kLeast = kLeastColumns<T, kClass>;
  constexpr float kLog2e = 1.4426950408889634f;
  extern __shared__ __align__(16) char shared_memory[];
  const Memory shared(shared_memory, plan.warps, p.D, p.bias.data != nullptr);
  const SharedTile<T>& sK = shared.sK;
  const int warp = threadIdx.x / kWarp;
  const int rows = kWarpRows * plan.warps;
  const int sequence = int(blockIdx.x / unsigned(plan.tiles));
  const RowRange queries(int(blockIdx.x - sequence * unsigned(plan.tiles)) * rows, p.L, rows);
  const SharedTile<T> sQ{shared.sQ.row(kWarpRows * warp), shared.sQ.ld};
  const int columns = padded_columns(p.D);
  const ScoreRows<S, false> score_rows(p, sequence, queries.first + kWarpRows * warp);
  const int end = end_of_keys(p, score_rows.place, queries.first + rows);

  Mover<T> mover(this_block(), p, 1);
  mover.go_to(score_rows.place);
  auto keys = mover.stream(p.k, p.S), values = mover.stream(p.v, p.S);
  bool windowed = false;
  // What the first product needs of a tile of keys.
  const auto load_keys = [&](int first) {
    mover.load_next(p.k, {first, p.S, kKeys}, sK, keys);
    if (p.bias.data == nullptr) return;
    windowed = load_bias_part<kKeys, false, true>(p, score_rows.place.n, queries, first, shared.bias);
  };
  mover.load(p.q, queries, shared.sQ);
  load_keys(0);
  ptx::copy_commit();
  mover.clear_unused(shared.sQ, rows);
  mover.clear_unused(sK, kKeys);
  mover.clear_unused(shared.sV, kKeys);

  // Where nothing is added to the scores, they are scaled with the exponent's base: one product a score.
  const bool scaled_late = p.bias.data == nullptr && p.scale > 0;
  const float base = scaled_late ? p.scale * kLog2e : kLog2e;
  Fragments<kClass> rQ;
  Accumulators<S, kClass> rOut = {};
  float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  for (int first = 0; first < end; first += kKeys) {
    ptx::copy_wait<0>();
    __syncthreads();  // k is there; nobody reads the tile before any more
    mover.load_next(p.v, {first, p.S, kKeys}, shared.sV, values);
    ptx::copy_commit();
    if (p.rotary != nullptr) {
      if (first == 0) rotate_rows(this_block(), p, 1, queries, shared.sQ);
      rotate_rows(this_block(), p, 1, {first, p.S, kKeys}, sK);
      __syncthreads();
    }

    // (1) s = scale * q k^T + bias
    Scores<S> rP;
    if constexpr (kFixedPitch<T, kClass>) {
      if (first == 0 || !kKeepsQueries<kClass>) load_fragments(rQ, sQ, columns);
      fragments_by_rows<kLeast>(rP[0], rQ, sK, columns);
    } else {
      scores<S>(rP, sQ, sK, columns);
    }
    if (!scaled_late) score_rows.add_bias(p, rP[0], shared.bias, windowed);
    score_rows.template hide<kKeys>(p, rP[0], first);

    // (2) m' = max(m, rowmax(s)); p = exp(s - m'), (3) l = l * exp(m - m') + rowsum(p)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = most[half];
#pragma unroll
      for (int n = 0; n < S::kN; ++n) highest = fmaxf(highest, fmaxf(rP[0][n][2 * half], rP[0][n][2 * half + 1]));
      highest = over_row(highest, [](float a, float b) { return fmaxf(a, b); });
      const float next = shift_of(highest);
      const float rescale = ptx::exp2_approx((most[half] - next) * base);
      most[half] = highest;
      sum[half] *= rescale;
#pragma unroll
      for (int n = 0; n < S::kN; ++n) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) sum[half] += rP[0][n][e] = ptx::exp2_approx((rP[0][n][e] - next) * base);
      }
#pragma unroll
      for (int c = 0; c < kClass / kColumns; ++c) {
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          rOut[c][0][n][2 * half] *= rescale;
          rOut[c][0][n][2 * half + 1] *= rescale;
        }
      }
    }
    const Weights<S, T> weights(rP, shared.weights + warp * kWeightsFloats<S, T>);
    ptx::copy_wait<0>();
    __syncthreads();  // v is there; nobody reads k any more
    if (first + kKeys < end) load_keys(first + kKeys);
    ptx::copy_commit();

    // (4) acc = acc * exp(m - m') + p v
    accumulate<S, kClass, kLeast>(rOut, weights, shared.sV.data, sQ.ld, columns);
  }

  // (5) out = acc / l; lse = m + log(l)
  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] = over_row(sum[half], [](float a, float b) { return a + b; });
    inverse[half] = sum[half] == 0 ? 0.0f : 1 / sum[half];
    const int64_t i = score_rows.row[half];
    if (p.lse.data != nullptr && lane_id() % 4 == 0 && i < p.L) {
      const int64_t at = offset_of(p.lse, score_rows.place) + p.lse.row.at(i);
      static_cast<float*>(p.lse.data)[at] = most[half] * (scaled_late ? p.scale : 1.0f) + logf(sum[half]);
    }
  }
#pragma unroll
  for (int c = 0; c < kClass / kColumns; ++c) {
    if (c * kColumns >= columns) continue;
    for_each_pair(rOut[c], c * kColumns, [&](int row, int column, float first, float second) {
      const float factor = inverse[row / 8];
      store_pair(sQ.row(row) + column, first * factor, second * factor);
    });
  }
  __syncthreads();
  mover.anew().store(p.out, queries, shared.sQ);
}

template <class T>
void launch_long_fwd(const SequenceAttentionFwd& p, const FwdPlan& plan, cudaStream_t stream) {
  dispatch_fwd_class<T>(plan.long_fwd.instance, [&](auto tag) {
    launch("long_attention_fwd_kernel", long_attention_fwd_kernel<T, decltype(tag)::value>, plan.long_fwd.shape, stream, p,
           plan.long_fwd.cut);
  });
}

}  // namespace vdiff::attention
