// What the backward kernels of short sequences do with a tile, and the bias gradients that a warp adds up.
#pragma once

#include "attention/cuda/sm80/bias_tables.cuh"
#include "attention/cuda/sm80/short_sequences.cuh"

namespace vdiff::attention {

// The bias gradients of `count` sequences of a unit, a lane's elements kWarp apart.
template <class S>
struct BiasTiles {
  float* data;

  // Of the lane's element e of tile (m, n).
  __device__ float& own(int tile, int m, int n, int e) const {
    return data[tile * kTileElements<S> + ((m * S::kN + n) * 4 + e) * kWarp + lane_id()];
  }

  // Of query i and key j of sequence c.
  __device__ float at(int c, int i, int j) const {
    const int tile = S::kPaired ? c / 2 : c, half = S::kPaired ? c % 2 : i % 16 / 8;
    const int element = (i / 16 * S::kN + j / 8) * 4 + half * 2 + j % 2, lane = i % 8 * 4 + j % 8 / 2;
    return data[tile * kTileElements<S> + element * kWarp + lane];
  }

  // What the sequence adds to an entry of its head's table.
  __device__ float entry(const SequenceAttentionBwd& p, int c, int entry) const {
    if (!p.dbias.relative) return at(c, entry / int(p.S), entry % int(p.S));
    float sum = 0;
    RowCursor query(p.dbias.query, 0, 1);
#pragma unroll 1
    for (int i = 0; i < p.L; ++i, query.go_on()) {
      const int j = row_of(p.dbias.key, entry - int(p.dbias.origin) - int(query.offset), int(p.S));
      if (j >= 0) sum += at(c, i, j);
    }
    return sum;
  }
};

// The gradients of a tile: dq to where q was, dk to where k, dv to where dout. mask(scores): scales and masks them. add(m, n, e, ds):
// the lane's element of the bias' gradient. p_scratch, ds_scratch: as Weights takes them. kD: as attend.
template <class S, int kD, class T, class Mask, class Add>
__device__ void tile_gradients(
    const SequenceAttentionBwd& p, const SharedTile<T>& sQ, const SharedTile<T>& sK, const SharedTile<T>& sV,
    const SharedTile<T>& sG, float* p_scratch, float* ds_scratch, int columns, const Mask& mask, const Add& add) {
  // (1) p = softmax(scale * q k^T + bias)
  Scores<S> rP;
  scores<S>(rP, sQ, sK, columns);
  mask(rP);
  softmax_rows<S>(rP);

  // (2) dp = dout v^T
  Scores<S> rS;
  scores<S>(rS, sG, sV, columns);

  // (3) ds = p * (dp - rowsum(p * dp)), (4) dbias += ds
#pragma unroll
  for (int m = 0; m < S::kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = 0;
#pragma unroll
      for (int n = 0; n < S::kN; ++n) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) sum = fmaf(rP[m][n][e], rS[m][n][e], sum);
      }
      sum = over_row(sum, [](float a, float b) { return a + b; });
#pragma unroll
      for (int n = 0; n < S::kN; ++n) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          rS[m][n][e] = rP[m][n][e] * (rS[m][n][e] - sum);
          add(m, n, e, rS[m][n][e]);
          rS[m][n][e] *= p.scale;
        }
      }
    }
  }

  // Rotated back, where there is a rotation; each where a row was that nobody needs again.
  const auto store = [&](const auto& rX, int d, const SharedTile<T>& sX) {
    const auto put = [&](int row, int column, float first, float second) {
      if (is_stored<kD>(column)) store_pair(sX.row(row) + column, first, second);
    };
    if (p.rotary == nullptr) return for_each_pair(rX, d, put);
    for_each_pair(rX, d, [&](int row, int column, float first, float second) {
      rotate_back(p, row % S::kRows, column, first, second);
      put(row, column, first, second);
    });
  };
  const Weights<S, T> weights(rP, p_scratch), gradients(rS, ds_scratch);
  for (int d = 0; d < columns; d += kColumns) {
    __syncwarp();  // the weights are there; lanes that rotate_back has parted meet again
    // (5) dv = p^T dout, (6) dq = scale * ds k, (7) dk = scale * ds^T q
    {
      Chunk<S, true> rDV = {};
      weigh<true, S>(rDV, weights, sG.data + d, sQ.ld);
      __syncwarp();
      for_each_pair(rDV, d, [&](int row, int column, float first, float second) {
        if (is_stored<kD>(column)) store_pair(sG.row(row) + column, first, second);
      });
    }
    Chunk<S, true> rDK = {};
    Chunk<S, false> rDQ = {};
    weigh<false, S>(rDQ, gradients, sK.data + d, sQ.ld);
    weigh<true, S>(rDK, gradients, sQ.data + d, sQ.ld);
    __syncwarp();
    store(rDQ, d, sQ);
    store(rDK, d, sK);
  }
  __syncwarp();
}

// The partial of a warp whose units begin with `first_unit`: of each of `count` sequences, the entries of a table.
template <class S>
__device__ void store_partial(const SequenceAttentionBwd& p, const BiasTiles<S>& tiles, int64_t first_unit, int count, float* partials) {
  __syncwarp();
  const int entries = int(p.dbias.entries);
  float* const gPartial = partials + first_unit * count * entries;
  for (int e = lane_id(); e < count * entries; e += kWarp) gPartial[e] = tiles.entry(p, e / entries, e % entries);
}

}  // namespace vdiff::attention
