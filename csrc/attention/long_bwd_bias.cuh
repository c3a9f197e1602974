// long_attention_dbias: the gradient of the bias.   contract: DESIGN.md 4
//
//   grid   (N * ceil(L / rows) * chunks, 1, 1)  x alone; chunks cut the sequences that add up, where heads and tiles are few
//   block  32 * warps threads                  a warp has 16 queries
//   tile   16 * warps queries x kTileColumns keys, whose ds are summed over the sequences in registers
//   smem   (2 * rows + 2 * kKeys) * (D up to a multiple of 16, + 8) * 2 B, at least a tile of fp32 (struct LongBiasMemory)
//   flops  4 L S D a sequence
//   acc    fp32
//   order  a block adds its sequences up in order; each diagonal of a tile has one thread, and each entry of a relative table one
//          diagonal (frames: j - i; pixels: dy W + dx); bias_sum_kernel adds the chunks' tables up in order: bit-equal in every run
//
//   for each tile of keys:
//     for each sequence of the head:
//       p    = exp(scale * q k^T + bias - lse)  (1)
//       dp   = dout v^T                         (2)
//       sum += p * (dp - delta)                 (3)
//     table entry += sum                        (4)
#pragma once

#include "attention/long_sequences.cuh"

namespace vdiff::attention {

template <class T>
struct LongBiasMemory {
  static constexpr int kKeys = sizeof(T) == 4 ? 16 : 32;
  using S = Shape<kWarpRows, kKeys>;
  static constexpr int kSumLd = kKeys + 1;
  int64_t* offsets;
  Tile<T> sQ, sG, sK, sV;
  float* sums;  // rows of kSumLd, in the place of the tiles

  static __host__ __device__ int64_t bytes(int warps, int64_t D) {
    const int64_t rows = (2 * kWarpRows * warps + 2 * kKeys) * row_elements<T>(D) * int64_t(sizeof(T));
    const int64_t sums = kWarpRows * warps * kSumLd * int64_t(sizeof(float));
    return (rows > sums ? rows : sums) + kKeys * int64_t(sizeof(int64_t));
  }

  __device__ LongBiasMemory(char* base, int warps, int64_t D) {
    const int ld = row_elements<T>(D);
    offsets = reinterpret_cast<int64_t*>(base);
    sQ = {reinterpret_cast<T*>(offsets + kKeys), ld};
    sG = {sQ.row(kWarpRows * warps), ld};
    sK = {sG.row(kWarpRows * warps), ld};
    sV = {sK.row(kKeys), ld};
    sums = reinterpret_cast<float*>(sQ.data);
  }
};

// delta: as lse. tables: (chunks, N, L, S) of a dense bias, (chunks * tiles, N, entries) of a relative one.
template <class T>
__global__ void __launch_bounds__(kLongWarps* kWarp, 3)
    long_attention_dbias_kernel(SequenceAttentionBwd p, LongPlan plan, const float* delta, float* tables) {
  using Memory = LongBiasMemory<T>;
  using S = typename Memory::S;
  constexpr int kKeys = Memory::kKeys;
  extern __shared__ __align__(16) char shared_memory[];
  const Memory shared(shared_memory, plan.warps, p.D);
  const int warp = threadIdx.x / kWarp;
  const int rows = kWarpRows * plan.warps;
  const int64_t part = divide(blockIdx.x, p.N), n = blockIdx.x - part * p.N;
  const int64_t chunk = divide(part, plan.tiles), tile = part - chunk * plan.tiles;
  const RowRange queries{tile * rows, p.L, rows};
  const Tile<T> sQ{shared.sQ.row(kWarpRows * warp), shared.sQ.ld}, sG{shared.sG.row(kWarpRows * warp), sQ.ld};
  const int columns = padded_columns(p.D);
  const int64_t places = p.size[0] * p.size[1] * p.size[2], per_chunk = (places + plan.chunks - 1) / plan.chunks;
  const int64_t first_place = chunk * per_chunk, end_place = min(places, first_place + per_chunk);
  float* const gTable = tables + ((p.dbias.relative ? part : chunk) * p.N + n) * p.dbias.entries;
  if (p.dbias.relative) {
    for (int64_t e = threadIdx.x; e < p.dbias.entries; e += blockDim.x) gTable[e] = 0;
  }

  for (int64_t first = 0; first < p.S; first += kKeys) {
    Scores<S> rSum = {};
    for (int64_t at = first_place; at < end_place; ++at) {
      const int64_t sequence = at * p.N + n;
      const SequenceRange own = one_sequence(p, sequence);
      const ScoreRows<S, false> score_rows(p, sequence, queries.first + kWarpRows * warp);
      __syncthreads();  // nobody reads the tiles before any more
      load_rows(this_block(), p, p.q, own, queries, shared.sQ);
      load_rows(this_block(), p, p.k, own, {first, p.S, kKeys}, shared.sK);
      load_rows(this_block(), p, p.grad_out, own, queries, shared.sG);
      load_rows(this_block(), p, p.v, own, {first, p.S, kKeys}, shared.sV);
      ptx::copy_commit();
      column_offsets<S, false>(p, first, shared.offsets);
      float shift[2], rDelta[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        SequenceRows deltas = p.lse;
        deltas.data = const_cast<float*>(delta);
        shift[half] = shift_of(row_value(p, p.lse, score_rows.place, score_rows.row[half], 0));
        rDelta[half] = row_value(p, deltas, score_rows.place, score_rows.row[half], 0);
      }
      ptx::copy_wait<0>();
      __syncthreads();
      if (p.rotary != nullptr) {
        rotate_rows(this_block(), p, 1, queries, shared.sQ);
        rotate_rows(this_block(), p, 1, {first, p.S, kKeys}, shared.sK);
        __syncthreads();
      }

      // (1) p = exp(scale * q k^T + bias - lse), (2) dp = dout v^T, (3) sum += p * (dp - delta)
      Scores<S> rP, rS;
      scores<S>(rP, sQ, shared.sK, columns);
      score_rows.finish(p, rP[0], first, shared.offsets);
      scores<S>(rS, sG, shared.sV, columns);
#pragma unroll
      for (int tile_n = 0; tile_n < S::kN; ++tile_n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float probability = ptx::exp2_approx(fmaf(rP[0][tile_n][e], kLog2e, -shift[e / 2]));
          rSum[0][tile_n][e] = fmaf(probability, rS[0][tile_n][e] - rDelta[e / 2], rSum[0][tile_n][e]);
        }
      }
    }

    // (4) table entry += sum
    __syncthreads();
#pragma unroll
    for (int tile_n = 0; tile_n < S::kN; ++tile_n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = kWarpRows * warp + Element<S>::query(0, e), column = Element<S>::key(tile_n, e);
        shared.sums[row * Memory::kSumLd + column] = rSum[0][tile_n][e];
      }
    }
    __syncthreads();
    const int there_rows = int(min(int64_t(rows), p.L - queries.first)), there_keys = int(min(int64_t(kKeys), p.S - first));
    if (!p.dbias.relative) {
      for (int e = threadIdx.x; e < there_rows * kKeys; e += blockDim.x) {
        const int row = e / kKeys, column = e % kKeys;
        if (column < there_keys) gTable[(queries.first + row) * p.S + first + column] = shared.sums[row * Memory::kSumLd + column];
      }
      continue;
    }
    for (int diagonal = threadIdx.x; diagonal < rows + kKeys - 1; diagonal += blockDim.x) {
      int64_t entry = -1;
      float sum = 0;
      for (int row = max(0, rows - 1 - diagonal); row < there_rows; ++row) {
        const int column = diagonal - (rows - 1) + row;
        if (column >= there_keys) break;
        const int64_t its = p.dbias.origin + p.dbias.query.at(queries.first + row) + p.dbias.key.at(first + column);
        if (its != entry) {
          if (entry >= 0) gTable[entry] += sum;
          entry = its;
          sum = 0;
        }
        sum += shared.sums[row * Memory::kSumLd + column];
      }
      if (entry >= 0) gTable[entry] += sum;
    }
  }
}

}  // namespace vdiff::attention
