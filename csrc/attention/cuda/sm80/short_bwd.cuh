// short_attention_bwd: dq, dk, dv and the bias gradient of short_attention_fwd, in one pass.   contract: DESIGN.md 4
//
//   grid   (ceil(stride / warps), 1, 1)       stride warps in all; a warp's units lie so far apart that they are of the same heads
//   block  32 * warps threads                 a warp has its units to itself: no barrier of the block
//   tile   as forward: all of a sequence stays in registers and shared memory, its scores are computed again
//   smem   warps * (4 * count * kRows * (D up to a multiple of 16, + 8) * 2 B + the bias gradient, L S rounded up to tiles, * 4 B)
//          (struct ShortBwdMemory); T = 16, D = 64: 9 + 1 KiB a sequence
//   bytes  (3 L + 4 S) D elements a sequence: q, k, v and dout are read once, dq, dk and dv written once: the floor
//          neither out nor lse is read: rowsum(dout * out) = rowsum(p * dp)
//   flops  10 L S D a sequence
//   mma    as forward
//   acc    fp32; p and ds are rounded to T as operands, as eager PyTorch rounds them
//   order  a warp adds the bias gradients of its units in order, folds them by table entry and writes a partial for each sequence of
//          a unit; short_bias_sum adds those in order: bit-equal in every run, on every GPU, for the cut follows from the shape
//   limits as forward
//
//   p     = softmax(scale * q k^T + bias)     (1)
//   dp    = dout v^T                          (2)
//   ds    = p * (dp - rowsum(p * dp))         (3)
//   dbias += ds                               (4)
//   dv    = p^T dout                          (5)
//   dq    = scale * ds k                      (6)
//   dk    = scale * ds^T q                    (7)
#pragma once

#include "attention/cuda/sm80/bias_tables.cuh"
#include "attention/cuda/sm80/instantiations.h"
#include "attention/cuda/sm80/short_sequences.cuh"
#include "common/cuda/launch.cuh"

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

// partials: (warps, plan.count, entries of a table).
template <class T, int kRows>
__global__ void __launch_bounds__(kMaxWarps* kWarp, kRows == 32 ? 2 : sizeof(T) == 4 ? 3 : 4)
    short_attention_bwd_kernel(SequenceAttentionBwd p, ShortPlan plan, float* partials) {
  using S = ShortShape<kRows>;
  using Memory = ShortBwdMemory<T, kRows, BiasTiles<S>>;
  extern __shared__ __align__(16) char shared_memory[];
  const int warp = threadIdx.x / kWarp;
  const int64_t first_unit = int64_t(blockIdx.x) * plan.warps + warp;
  if (first_unit >= plan.stride) return;
  const bool want_dbias = p.dbias.data != nullptr;
  const Memory shared(shared_memory + warp * plan.warp_bytes, plan.count, p.D, want_dbias);
  const RowRange queries{0, p.L, kRows}, keys{0, p.S, kRows};
  const int columns = padded_columns(p.D);
  constexpr int kSequences = S::kPaired ? 2 : 1;  // of a tile
  const int tiles = plan.count / kSequences;
  if (want_dbias) {
    for (int e = lane_id(); e < tiles * kTileElements<S>; e += kWarp) shared.dbias.data[e] = 0;
  }

  Mover<T> mover(this_warp(), p, plan.count);

  for (int64_t unit = first_unit; unit < plan.units; unit += plan.stride) {
    const int64_t first = unit * plan.count;
    const SequenceIndex place = sequence_index(p, first);
    const int there = int(min(p.sequences() - first, int64_t(plan.count)));
    mover.go_to(place, there);
    mover.load(p.q, queries, shared.sQ);
    mover.load(p.k, keys, shared.sK);
    ptx::copy_commit();
    mover.load(p.v, keys, shared.sV);
    mover.load(p.grad_out, queries, shared.sG);
    ptx::copy_commit();
    mover.clear_unused(shared.sQ, kRows);
    mover.clear_unused(shared.sK, kRows);
    mover.clear_unused(shared.sV, kRows);
    mover.clear_unused(shared.sG, kRows);
    ptx::copy_wait<1>();
    __syncwarp();
    if (p.rotary != nullptr) {
      rotate_rows(this_warp(), p, plan.count, queries, shared.sQ);
      rotate_rows(this_warp(), p, plan.count, keys, shared.sK);
    }
    ptx::copy_wait<0>();
    __syncwarp();

    for (int tile = 0; tile < tiles && tile * kSequences < there; ++tile) {
      const int c = tile * kSequences;
      const SharedTile<T> sQ{shared.sQ.row(c, kRows, 0), shared.sQ.ld}, sK{shared.sK.row(c, kRows, 0), sQ.ld};
      const SharedTile<T> sV{shared.sV.row(c, kRows, 0), sQ.ld}, sG{shared.sG.row(c, kRows, 0), sQ.ld};

      // (1) p = softmax(scale * q k^T + bias)
      Scores<S> rP;
      scores<S>(rP, sQ, sK, columns);
      const TileMask<S> mask(p, neighbour(p, place, c), there - c);
      mask_scores(p, mask, rP);
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
          const bool adds = want_dbias && c + Element<S>::sequence(2 * half) < there;
#pragma unroll
          for (int n = 0; n < S::kN; ++n) {
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; ++e) {
              rS[m][n][e] = rP[m][n][e] * (rS[m][n][e] - sum);
              if (adds) shared.dbias.own(tile, m, n, e) += rS[m][n][e];
              rS[m][n][e] *= p.scale;
            }
          }
        }
      }

      const Weights<S, T> weights(rP, shared.p), gradients(rS, shared.ds);
      for (int d = 0; d < columns; d += kColumns) {
        __syncwarp();  // the weights are there; lanes that rotate_back has parted meet again
        // (5) dv = p^T dout, (6) dq = scale * ds k, (7) dk = scale * ds^T q: each where a row was that nobody needs again
        {
          Chunk<S, true> rDV = {};
          weigh<true, S>(rDV, weights, sG.data + d, sQ.ld);
          __syncwarp();
          for_each_pair(rDV, d, [&](int row, int column, float a, float b) { store_pair(sG.row(row) + column, a, b); });
        }
        Chunk<S, true> rDK = {};
        Chunk<S, false> rDQ = {};
        weigh<false, S>(rDQ, gradients, sK.data + d, sQ.ld);
        weigh<true, S>(rDK, gradients, sQ.data + d, sQ.ld);
        __syncwarp();
        for_each_pair(rDQ, d, [&](int row, int column, float first, float second) {
          rotate_back(p, row % kRows, column, first, second);
          store_pair(sQ.row(row) + column, first, second);
        });
        for_each_pair(rDK, d, [&](int row, int column, float first, float second) {
          rotate_back(p, row % kRows, column, first, second);
          store_pair(sK.row(row) + column, first, second);
        });
      }
      __syncwarp();
    }
    mover.store(p.dq, queries, shared.sQ);
    mover.store(p.dk, keys, shared.sK);
    mover.store(p.dv, keys, shared.sG);
    __syncwarp();
  }

  if (want_dbias) {
    __syncwarp();  // a warp that had no unit has only just zeroed its tiles
    const int entries = int(p.dbias.entries);
    float* const gPartial = partials + first_unit * plan.count * entries;
    for (int e = lane_id(); e < plan.count * entries; e += kWarp) gPartial[e] = shared.dbias.entry(p, e / entries, e % entries);
  }
}

template <class T>
void launch_short_bwd(const SequenceAttentionBwd& p, const BwdPlan& plan, void* scratch, cudaStream_t stream) {
  auto* const partials = static_cast<float*>(scratch);
  dispatch_rows(plan.short_bwd.instance, [&](auto rows) {
    launch("short_attention_bwd_kernel", short_attention_bwd_kernel<T, decltype(rows)::value>, plan.short_bwd.shape, stream, p,
           plan.short_bwd.cut, partials);
  });
  if (plan.partials == 0) return;
  launch("short_bias_sum_kernel", short_bias_sum_kernel<>, plan.short_bias_sum, stream, partials, plan.partials, p.N,
         p.dbias.entries, p.dbias.data);
}

}  // namespace vdiff::attention
