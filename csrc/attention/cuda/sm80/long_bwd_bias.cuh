// long_attention_dbias: the gradient of the bias.   contract: DESIGN.md 4
//
//   grid   (N * ceil(L / rows) * chunks, 1, 1)  x alone; chunks cut the sequences that add up, where heads and tiles are few
//   block  32 * warps threads                  a warp has 16 queries
//   tile   16 * warps queries x kTileColumns keys, whose ds are summed over the sequences in registers
//   smem   (2 * rows + 2 * kTileColumns) * (D up to a multiple of 16, + 8) * 2 B, at least a tile of fp32, + 4.5 KiB of the bias
//          (struct LongBiasMemory); D = 64: 40.5 KiB
//   flops  4 L S D a sequence
//   async  q and k of the next sequence are on their way while dp is computed, dout and v while the scores are: two barriers each
//   acc    fp32
//   order  a block adds its sequences up in order; each diagonal of a tile has one thread, and each entry of a relative table one
//          diagonal (frames: j - i; pixels: dy W + dx); bias_sum adds the chunks' tables up in order: bit-equal in every run
//
//   for each tile of keys:
//     for each sequence of the head:
//       p    = exp(scale * q k^T + bias - lse)  (1)
//       dp   = dout v^T                         (2)
//       sum += p * (dp - delta)                 (3)
//     table entry += sum                        (4)
#pragma once

#include "attention/cuda/sm80/long_sequences.cuh"

namespace vdiff::attention {

// delta: as lse. tables: (chunks, N, L, S) of a dense bias, (chunks * tiles, N, entries) of a relative one.
template <class T, int kClass>
__global__ void __launch_bounds__(kLongWarps* kWarp, 2)
    long_attention_dbias_kernel(SequenceAttentionBwd p, LongPlan plan, const float* delta, float* tables) {
  using Memory = LongBiasMemory<T, kClass>;
  using S = typename Memory::S;
  constexpr int kKeys = Memory::kKeys;
  extern __shared__ __align__(16) char shared_memory[];
  const Memory shared(shared_memory, plan.warps, p.D);
  const int warp = threadIdx.x / kWarp;
  const int rows = kWarpRows * plan.warps;
  const int64_t part = divide(blockIdx.x, p.N), n = blockIdx.x - part * p.N;
  const int64_t chunk = divide(part, plan.tiles), tile = part - chunk * plan.tiles;
  const RowRange queries(int(tile) * rows, p.L, rows);
  const SharedTile<T> sQ{shared.sQ.row(kWarpRows * warp), shared.sQ.ld}, sG{shared.sG.row(kWarpRows * warp), sQ.ld};
  const int columns = padded_columns(p.D);
  const int64_t places = p.size[0] * p.size[1] * p.size[2], per_chunk = (places + plan.chunks - 1) / plan.chunks;
  const int64_t first_place = chunk * per_chunk, end_place = min(places, first_place + per_chunk);
  float* const gTable = tables + ((p.dbias.relative ? part : chunk) * p.N + n) * p.dbias.entries;
  if (p.dbias.relative) {
    for (int64_t e = threadIdx.x; e < p.dbias.entries; e += blockDim.x) gTable[e] = 0;
  }

  Mover<T> mover(this_block(), p, 1);
  const auto load_scored = [&](int64_t place, int first) {  // of the next place
    mover.go_to(sequence_index(p, place * p.N + n));
    mover.load(p.q, queries, shared.sQ);
    mover.load(p.k, {first, p.S, kKeys}, shared.sK);
  };
  const auto load_weighed = [&](int first) {  // of the same place
    mover.load(p.grad_out, queries, shared.sG);
    mover.load(p.v, {first, p.S, kKeys}, shared.sV);
  };

  for (int first = 0; first < p.S; first += kKeys) {
    const bool windowed = load_bias_part<kKeys, false>(p, n, queries, first, shared.bias);
    mover.clear_unused(shared.sQ, rows);
    mover.clear_unused(shared.sG, rows);
    mover.clear_unused(shared.sK, kKeys);
    mover.clear_unused(shared.sV, kKeys);
    Scores<S> rSum = {};
    if (first_place < end_place) {
      load_scored(first_place, first);
      ptx::copy_commit();
      load_weighed(first);
    }
    ptx::copy_commit();
    for (int64_t at = first_place; at < end_place; ++at) {
      const ScoreRows<S, false> score_rows(p, at * p.N + n, queries.first + kWarpRows * warp);
      float shift[2], rDelta[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        SequenceRows deltas = p.lse;
        deltas.data = const_cast<float*>(delta);
        shift[half] = shift_of(row_value(p, p.lse, score_rows.place, score_rows.row[half], 0));
        rDelta[half] = row_value(p, deltas, score_rows.place, score_rows.row[half], 0);
      }
      ptx::copy_wait<1>();
      __syncthreads();  // q and k are there
      if (p.rotary != nullptr) {
        rotate_rows(this_block(), p, 1, queries, shared.sQ);
        rotate_rows(this_block(), p, 1, {first, p.S, kKeys}, shared.sK);
        __syncthreads();
      }

      // (1) p = exp(scale * q k^T + bias - lse)
      Scores<S> rP, rS;
      scores<S>(rP, sQ, shared.sK, columns);
      score_rows.finish(p, rP[0], first, shared.bias, windowed);
      ptx::copy_wait<0>();
      __syncthreads();  // dout and v are there; nobody reads q and k any more
      const bool more = at + 1 < end_place;
      if (more) load_scored(at + 1, first);
      ptx::copy_commit();

      // (2) dp = dout v^T, (3) sum += p * (dp - delta)
      scores<S>(rS, sG, shared.sV, columns);
#pragma unroll
      for (int tile_n = 0; tile_n < S::kN; ++tile_n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float probability = exp_above(rP[0][tile_n][e], shift[e / 2]);
          rSum[0][tile_n][e] = fmaf(probability, rS[0][tile_n][e] - rDelta[e / 2], rSum[0][tile_n][e]);
        }
      }
      __syncthreads();  // nobody reads dout and v any more
      if (more) load_weighed(first);
      ptx::copy_commit();
    }

    // (4) table entry += sum
    __syncthreads();
#pragma unroll
    for (int tile_n = 0; tile_n < S::kN; ++tile_n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = kWarpRows * warp + Element<S>::query(0, 2 * half), column = Element<S>::key(tile_n, 0);
        store_pair(shared.sums + row * Memory::kSumLd + column, rSum[0][tile_n][2 * half], rSum[0][tile_n][2 * half + 1]);
      }
    }
    const int there_rows = queries.there(), there_keys = min(kKeys, int(p.S) - first);
    int* const entries = shared.entries(plan.warps);
    if (p.dbias.relative) {
      for (int i = threadIdx.x; i < there_rows; i += blockDim.x) entries[i] = int(p.dbias.query.at(queries.first + i));
      for (int j = threadIdx.x; j < there_keys; j += blockDim.x) entries[rows + j] = int(p.dbias.key.at(first + j));
    }
    __syncthreads();
    if (!p.dbias.relative) {
      for (int e = threadIdx.x; e < there_rows * kKeys; e += blockDim.x) {
        const int row = e / kKeys, column = e % kKeys;
        float* const gRow = gTable + int64_t(queries.first + row) * p.S + first;
        if (column < there_keys) gRow[column] = shared.sums[row * Memory::kSumLd + column];
      }
    } else {
      for (int diagonal = threadIdx.x; diagonal < rows + kKeys - 1; diagonal += blockDim.x) {
        const int first_row = max(0, rows - 1 - diagonal);
        const int end_row = min(there_rows, there_keys + rows - 1 - diagonal);
        int entry = -1;
        float sum = 0, excess = 0;  // of the sum's rounding, taken off the next value: a plain chain of 64 would be over float's budget
        for (int row = first_row; row < end_row; ++row) {
          const int column = diagonal - (rows - 1) + row;
          const int its = int(p.dbias.origin) + entries[row] + entries[rows + column];
          if (its != entry) {
            if (entry >= 0) gTable[entry] += sum;
            entry = its;
            sum = excess = 0;
          }
          const float value = shared.sums[row * Memory::kSumLd + column] - excess, next = sum + value;
          excess = (next - sum) - value;
          sum = next;
        }
        if (entry >= 0) gTable[entry] += sum;
      }
    }
    __syncthreads();  // nobody reads the sums any more, where tiles will be
  }
}

}  // namespace vdiff::attention
