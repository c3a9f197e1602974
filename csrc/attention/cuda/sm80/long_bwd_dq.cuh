// long_attention_dq: the gradient of the queries, and delta = rowsum(dout * out) for those of keys and values.   contract: DESIGN.md 4
//
//   grid, block, tile as long_attention_fwd
//   smem   (2 * rows + 2 * kTileColumns) * (D up to a multiple of 16, + 8) * 2 B (struct LongDqMemory); D = 64: 36 KiB, + 4.5 for a bias
//   bytes  (4 L + 2 S) D elements a sequence where k and v stay in L2: q, dout and out are read, dq is written
//   flops  6 L S D a sequence                  scores and dp are computed here and again for dk and dv: no atomics, one order
//   async  v of the next tile is on its way while ds k is computed, k after it
//   acc    fp32; ds is rounded to T as an operand
//
//   delta = rowsum(dout * out)                 (1)
//   for each tile of keys:
//     p   = exp(scale * q k^T + bias - lse)    (2)
//     dp  = dout v^T                           (3)
//     ds  = scale * p * (dp - delta)           (4)
//     acc = acc + ds k                         (5)
#pragma once

#include "attention/cuda/sm80/long_sequences.cuh"

namespace vdiff::attention {

// rowsum(a b) of the lane's two rows of 16, from the diagonal of a b^T: summed as dp = dout v^T is, so that dp - delta is exactly
// 0 where a single key has all the weight.
template <class T>
__device__ void row_products(float (&sum)[2], const SharedTile<T>& sA, const SharedTile<T>& sB, int columns) {
  float rAll[2][4];
  rows_by_rows(rAll, sA.data, sB.data, sA.ld, columns);
  const int row = lane_id() / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float own = row % 2 == 0 ? rAll[half][2 * half] : rAll[half][2 * half + 1];
    sum[half] = __shfl_sync(~0u, own, 4 * row + row / 2);
  }
}

// delta: fp32, as lse.
template <class T, int kClass>
__global__ void __launch_bounds__(kLongWarps* kWarp, 2)
    long_attention_dq_kernel(SequenceAttentionBwd p, LongPlan plan, float* delta) {
  using Memory = LongDqMemory<T, kClass>;
  using S = typename Memory::S;
  constexpr int kKeys = Memory::kKeys;
  extern __shared__ __align__(16) char shared_memory[];
  const Memory shared(shared_memory, plan.warps, p.D, p.bias.data != nullptr);
  const int warp = threadIdx.x / kWarp;
  const int rows = kWarpRows * plan.warps;
  const int64_t sequence = divide(blockIdx.x, plan.tiles);
  const RowRange queries(int(blockIdx.x - sequence * plan.tiles) * rows, p.L, rows);
  const SharedTile<T> sQ{shared.sQ.row(kWarpRows * warp), shared.sQ.ld}, sG{shared.sG.row(kWarpRows * warp), sQ.ld};
  const int columns = padded_columns(p.D);
  const ScoreRows<S, false> score_rows(p, sequence, queries.first + kWarpRows * warp);
  const int end = end_of_keys(p, score_rows.place, queries.first + rows);

  // (1) delta = rowsum(dout * out), with out where q will be
  Mover<T> mover(this_block(), p, 1);
  mover.go_to(score_rows.place);
  mover.load(p.out, queries, shared.sQ);
  mover.load(p.grad_out, queries, shared.sG);
  ptx::copy_commit();
  mover.clear_unused(shared.sQ, rows);
  mover.clear_unused(shared.sG, rows);
  mover.clear_unused(shared.sK, kKeys);
  mover.clear_unused(shared.sV, kKeys);
  ptx::copy_wait<0>();
  __syncthreads();
  float rDelta[2], shift[2];
  row_products(rDelta, sG, sQ, columns);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t i = score_rows.row[half];
    shift[half] = shift_of(row_value(p, p.lse, score_rows.place, i, 0));
    if (lane_id() % 4 == 0 && i < p.L) delta[offset_of(p.lse, score_rows.place) + p.lse.row.at(i)] = rDelta[half];
  }
  __syncthreads();
  mover.load(p.q, queries, shared.sQ);
  mover.load(p.k, {0, p.S, kKeys}, shared.sK);
  mover.load(p.v, {0, p.S, kKeys}, shared.sV);
  ptx::copy_commit();

  Accumulators<S, kClass> rDQ = {};
  for (int first = 0; first < end; first += kKeys) {
    ptx::copy_wait<0>();
    __syncthreads();
    if (p.rotary != nullptr) {
      if (first == 0) rotate_rows(this_block(), p, 1, queries, shared.sQ);
      rotate_rows(this_block(), p, 1, {first, p.S, kKeys}, shared.sK);
    }
    bool windowed = false;
    if (p.bias.data != nullptr) windowed = load_bias_part<kKeys, false>(p, score_rows.place.n, queries, first, shared.bias);
    if (p.rotary != nullptr || p.bias.data != nullptr) __syncthreads();

    // (2) p = exp(scale * q k^T + bias - lse), (3) dp = dout v^T
    Scores<S> rP, rS;
    scores<S>(rP, sQ, shared.sK, columns);
    score_rows.finish(p, rP[0], first, shared.bias, windowed);
    scores<S>(rS, sG, shared.sV, columns);

    // (4) ds = scale * p * (dp - delta)
#pragma unroll
    for (int n = 0; n < S::kN; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float probability = exp_above(rP[0][n][e], shift[e / 2]);
        rS[0][n][e] = p.scale * probability * (rS[0][n][e] - rDelta[e / 2]);
      }
    }
    const Weights<S, T> gradients(rS, shared.weights + warp * kWeightsFloats<S, T>);
    __syncthreads();  // nobody reads v any more
    const bool more = first + kKeys < end;
    if (more) mover.load(p.v, {first + kKeys, p.S, kKeys}, shared.sV);
    ptx::copy_commit();

    // (5) acc = acc + ds k
    accumulate<S, kClass>(rDQ, gradients, shared.sK.data, sQ.ld, columns);
    __syncthreads();  // nobody reads k any more
    if (more) mover.load(p.k, {first + kKeys, p.S, kKeys}, shared.sK);
    ptx::copy_commit();
  }

#pragma unroll
  for (int c = 0; c < kClass / kColumns; ++c) {
    if (c * kColumns >= columns) continue;
    for_each_pair(rDQ[c], c * kColumns, [&](int row, int column, float first, float second) {
      rotate_back(p, queries.first + kWarpRows * warp + row, column, first, second);
      store_pair(sQ.row(row) + column, first, second);
    });
  }
  __syncthreads();
  mover.store(p.dq, queries, shared.sQ);
}

}  // namespace vdiff::attention
