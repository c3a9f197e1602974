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
//   order  a warp adds the bias gradients of its units in order, one partial a warp; short_bias_sum_kernel adds those in order:
//          bit-equal in every run, on every GPU, for the cut follows from the shape
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

#include "attention/bias_tables.cuh"
#include "attention/short_sequences.cuh"

namespace vdiff::attention {

template <class S>
constexpr int kTileElements = S::kM * S::kN * 4 * kWarp;

template <class T, int kRows>
struct ShortBwdMemory {
  using S = ShortShape<kRows>;
  Tile<T> sQ, sK, sV, sG;  // count * kRows rows each; dq, dk and dv go where q, k and dout were
  float *p, *ds;           // as operands
  float* dbias;            // kTileElements for each tile

  static __host__ __device__ int64_t bytes(int count, int64_t D, bool dbias) {
    const int tiles = S::kPaired ? count / 2 : count;
    const int64_t rows = count * kRows * 4 * row_elements<T>(D) * int64_t(sizeof(T));
    return rows + (2 * Weights<S, T>::kScratch + (dbias ? tiles * kTileElements<S> : 0)) * int64_t(sizeof(float));
  }

  __device__ ShortBwdMemory(char* base, int count, int64_t D) {
    const int ld = row_elements<T>(D);
    sQ = {reinterpret_cast<T*>(base), ld};
    sK = {sQ.row(count * kRows), ld};
    sV = {sK.row(count * kRows), ld};
    sG = {sV.row(count * kRows), ld};
    p = reinterpret_cast<float*>(sG.row(count * kRows));
    ds = p + Weights<S, T>::kScratch;
    dbias = ds + Weights<S, T>::kScratch;
  }
};

// Where the lane's element lies in a tile's bias gradient: neighbouring lanes beside each other.
template <class S>
__device__ int tile_place(int m, int n, int e) {
  return ((m * S::kN + n) * 4 + e) * kWarp + lane_id();
}

template <class T, int kRows>
__global__ void __launch_bounds__(kMaxWarps* kWarp, kRows == 32 || sizeof(T) == 4 ? 3 : 4)
    short_attention_bwd_kernel(SequenceAttentionBwd p, ShortPlan plan, float* partials) {
  using S = ShortShape<kRows>;
  using Memory = ShortBwdMemory<T, kRows>;
  extern __shared__ __align__(16) char shared_memory[];
  const int warp = threadIdx.x / kWarp;
  const int64_t first_unit = int64_t(blockIdx.x) * plan.warps + warp;
  if (first_unit >= plan.stride) return;
  const bool want_dbias = p.dbias.data != nullptr;
  const Memory shared(shared_memory + warp * Memory::bytes(plan.count, p.D, want_dbias), plan.count, p.D);
  const RowRange queries{0, p.L, kRows}, keys{0, p.S, kRows};
  const int columns = padded_columns(p.D);
  constexpr int kSequences = S::kPaired ? 2 : 1;  // of a tile
  const int tiles = plan.count / kSequences;
  if (want_dbias) {
    for (int e = lane_id(); e < tiles * kTileElements<S>; e += kWarp) shared.dbias[e] = 0;
  }

  for (int64_t unit = first_unit; unit < plan.units; unit += plan.stride) {
    const SequenceRange own{unit * plan.count, p.sequences(), plan.count};
    load_rows(this_warp(), p, p.q, own, queries, shared.sQ);
    load_rows(this_warp(), p, p.k, own, keys, shared.sK);
    ptx::copy_commit();
    load_rows(this_warp(), p, p.v, own, keys, shared.sV);
    load_rows(this_warp(), p, p.grad_out, own, queries, shared.sG);
    ptx::copy_commit();
    ptx::copy_wait<1>();
    __syncwarp();
    if (p.rotary != nullptr) {
      rotate_rows(this_warp(), p, plan.count, queries, shared.sQ);
      rotate_rows(this_warp(), p, plan.count, keys, shared.sK);
    }
    ptx::copy_wait<0>();
    __syncwarp();

    for (int tile = 0; tile < tiles && own.there(tile * kSequences); ++tile) {
      const int row = tile * kSequences * kRows;
      const Tile<T> sQ{shared.sQ.row(row), shared.sQ.ld}, sK{shared.sK.row(row), sQ.ld};
      const Tile<T> sV{shared.sV.row(row), sQ.ld}, sG{shared.sG.row(row), sQ.ld};

      // (1) p = softmax(scale * q k^T + bias)
      const TileMask<S> mask(p, own.first + tile * kSequences);
      Scores<S> rP;
      scores<S>(rP, sQ, sK, columns);
      mask_scores(p, mask, rP);
      float lse[S::kM][2];
      softmax_rows<S>(rP, lse);

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
          const bool there = own.there(tile * kSequences + Element<S>::sequence(2 * half));
#pragma unroll
          for (int n = 0; n < S::kN; ++n) {
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; ++e) {
              rS[m][n][e] = rP[m][n][e] * (rS[m][n][e] - sum);
              if (want_dbias && there) shared.dbias[tile * kTileElements<S> + tile_place<S>(m, n, e)] += rS[m][n][e];
              rS[m][n][e] *= p.scale;
            }
          }
        }
      }

      const Weights<S, T> weights(rP, shared.p), gradients(rS, shared.ds);
      __syncwarp();
      for (int d = 0; d < columns; d += kColumns) {
        // (5) dv = p^T dout, (6) dq = scale * ds k, (7) dk = scale * ds^T q: each where a row was that nobody needs again
        Chunk<S, true> rDV = {}, rDK = {};
        Chunk<S, false> rDQ = {};
        weigh<true, S>(rDV, weights, sG.data + d, sQ.ld);
        weigh<false, S>(rDQ, gradients, sK.data + d, sQ.ld);
        weigh<true, S>(rDK, gradients, sQ.data + d, sQ.ld);
        __syncwarp();
        for_each_pair(rDV, d, [&](int row, int column, float first, float second) { store_pair(sG.row(row) + column, first, second); });
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
    store_rows(this_warp(), p, p.dq, own, queries, shared.sQ);
    store_rows(this_warp(), p, p.dk, own, keys, shared.sK);
    store_rows(this_warp(), p, p.dv, own, keys, shared.sG);
    __syncwarp();
  }

  if (want_dbias) {
    float* gPartial = partials + first_unit * tiles * kTileElements<S>;
    for (int e = lane_id(); e < tiles * kTileElements<S>; e += kWarp) gPartial[e] = shared.dbias[e];
  }
}

// short_bias_sum: the warps' partials added up, in order, for each pair of a query i and a key j of a head.
//
//   grid   (ceil(N * L * S / kReduceThreads), 1, 1)
//   block  kReduceThreads threads             a thread a pair
//   bytes  the partials, read once: one tile a warp and sequence of its unit, of up to plan.stride warps
//
// sums (N, L, S): the gradient itself where the table is dense, what bias_fold_kernel takes where it is relative.
template <int kRows>
__global__ void __launch_bounds__(kReduceThreads)
    short_bias_sum_kernel(SequenceAttentionBwd p, ShortPlan plan, const float* partials, float* sums) {
  using S = ShortShape<kRows>;
  const int64_t index = int64_t(blockIdx.x) * kReduceThreads + threadIdx.x;
  if (index >= p.N * p.L * p.S) return;
  const int64_t row = divide(index, p.S), n = divide(row, p.L);
  const int i = int(row - n * p.L), j = int(index - row * p.S);
  constexpr int kSequences = S::kPaired ? 2 : 1;
  const int64_t warp_floats = plan.count / kSequences * kTileElements<S>;
  const int64_t warps = plan.units < plan.stride ? plan.units : plan.stride;
  float sum = 0;
  // Sequence s of the first units of all warps is of head s % N, and so are those of their later units.
#pragma unroll 4
  for (int64_t s = n; s < warps * plan.count; s += p.N) {
    const int64_t warp = divide(s, plan.count);
    const int c = int(s - warp * plan.count);
    const int half = S::kPaired ? c % 2 : i % 16 / 8;
    const int place = ((i / 16 * S::kN + j / 8) * 4 + half * 2 + j % 2) * kWarp + i % 8 * 4 + j % 8 / 2;
    sum += partials[warp * warp_floats + c / kSequences * kTileElements<S> + place];
  }
  sums[index] = sum;
}

}  // namespace vdiff::attention
