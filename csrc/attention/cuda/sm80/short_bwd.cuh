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

#include "attention/cuda/sm80/instantiations.h"
#include "attention/cuda/sm80/short_gradients.cuh"
#include "attention/cuda/sm80/steady_bwd.cuh"
#include "common/cuda/launch.cuh"

namespace vdiff::attention {

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
      tile_gradients<S, 0>(
          p, shared.sQ.of_sequence(c, kRows), shared.sK.of_sequence(c, kRows), shared.sV.of_sequence(c, kRows),
          shared.sG.of_sequence(c, kRows), shared.p, shared.ds, columns,
          [&](Scores<S>& rS) { mask_scores(p, TileMask<S>(p, neighbour(p, place, c), there - c), rS); },
          [&](int m, int n, int e, float ds) {
            if (want_dbias && c + Element<S>::sequence(e) < there) shared.dbias.own(tile, m, n, e) += ds;
          });
    }
    mover.store(p.dq, queries, shared.sQ);
    mover.store(p.dk, keys, shared.sK);
    mover.store(p.dv, keys, shared.sG);
    __syncwarp();
  }

  if (want_dbias) store_partial(p, shared.dbias, first_unit, plan.count, partials);
}

// count: of the partials.
inline void launch_short_bias_sum(
    const SequenceAttentionBwd& p, const BwdPlan& plan, const float* partials, int64_t count, cudaStream_t stream) {
  launch("short_bias_sum_kernel", short_bias_sum_kernel<>, plan.short_bias_sum, stream, partials, count, p.N, p.dbias.entries,
         p.dbias.data);
}

template <class T>
void launch_short_bwd(const SequenceAttentionBwd& p, const BwdPlan& plan, void* scratch, cudaStream_t stream) {
  auto* const partials = static_cast<float*>(scratch);
  if (const int64_t count = launch_steady_bwd<T>(p, plan, partials, stream)) return launch_short_bias_sum(p, plan, partials, count, stream);
  dispatch_rows(plan.short_bwd.instance, [&](auto rows) {
    launch("short_attention_bwd_kernel", short_attention_bwd_kernel<T, decltype(rows)::value>, plan.short_bwd.shape, stream, p,
           plan.short_bwd.cut, partials);
  });
  launch_short_bias_sum(p, plan, partials, plan.short_bwd.cut.stride * plan.short_bwd.cut.count, stream);
}

}  // namespace vdiff::attention
