// short_attention_fwd: out = softmax(scale * q k^T + bias) v, for sequences of up to 32 queries and keys.   contract: DESIGN.md 4
//
//   Frames at a pixel (T, S up to 32), and as well the pixels of a frame or of a context where there are so few: those that
//   steady_attention_fwd does not serve.
//
//   grid   (ceil(units / warps), 1, 1)        x alone, so 65,535 is no limit; a unit is `count` neighbouring sequences, heads
//                                             innermost: the fewest whose rows of a frame are a multiple of 32 bytes, at most 4
//   block  32 * warps threads                 a warp has a unit to itself: no barrier of the block
//   tile   kRows = 8, 16 or 32 queries and keys in registers; kRows = 8: two sequences, one in rows 0 to 7, one in 8 to 15
//   smem   warps * 3 * count * kRows * (D up to a multiple of 16, + 8) * 2 B (struct ShortFwdMemory); float: twice, + the weights;
//          count > 1: + the gaps; T = 16, D = 64: 6.75 KiB a sequence
//   bytes  (2 L + 2 S) D elements a sequence: q, k and v are read once, out is written once: the floor; 4 L more for lse
//   flops  4 L S D a sequence                 T = 16, bf16: 8 per byte: memory-bound on every GPU we build for
//   mma    a share of L S / kRows^2 of each product is of use; kRows = 8: half of that, the most that a product of 16 rows by 8
//          columns, all of which meet, can hold of two sequences' 8 x 8 scores
//   acc    fp32; float runs by FFMA from shared memory, by the same tiles
//   limits L, S <= 32; the plan sends what does not fit into shared memory to the long kernels
//
//   s   = scale * q k^T + bias                (1)
//   p   = softmax(s)                          (2)
//   out = p v                                 (3)
#pragma once

#include "attention/cuda/sm80/instantiations.h"
#include "attention/cuda/sm80/short_sequences.cuh"
#include "attention/cuda/sm80/steady_fwd.cuh"
#include "common/cuda/launch.cuh"

namespace vdiff::attention {

template <class T, int kRows>
__global__ void __launch_bounds__(kMaxWarps* kWarp, sizeof(T) == 4 ? 3 : kRows == 32 ? 4 : 5)
    short_attention_fwd_kernel(SequenceAttentionFwd p, ShortPlan plan) {
  using S = ShortShape<kRows>;
  using Memory = ShortFwdMemory<T, kRows>;
  extern __shared__ __align__(16) char shared_memory[];
  const int warp = threadIdx.x / kWarp;
  const int64_t unit = int64_t(blockIdx.x) * plan.warps + warp;
  if (unit >= plan.units) return;
  const Memory shared(shared_memory + warp * plan.warp_bytes, plan.count, p.D);
  const RowRange queries{0, p.L, kRows}, keys{0, p.S, kRows};
  const int columns = padded_columns(p.D);
  constexpr int kSequences = S::kPaired ? 2 : 1;  // of a tile

  Mover<T> mover(this_warp(), p, plan.count);
  const int64_t first = unit * plan.count;
  const SequenceIndex place = sequence_index(p, first);
  const int there = int(min(p.sequences() - first, int64_t(plan.count)));
  mover.go_to(place, there);
  mover.load(p.q, queries, shared.sQ);
  mover.load(p.k, keys, shared.sK);
  ptx::copy_commit();
  mover.load(p.v, keys, shared.sV);
  ptx::copy_commit();
  mover.clear_unused(shared.sQ, kRows);
  mover.clear_unused(shared.sK, kRows);
  mover.clear_unused(shared.sV, kRows);
  ptx::copy_wait<1>();
  __syncwarp();
  if (p.rotary != nullptr) {
    rotate_rows(this_warp(), p, plan.count, queries, shared.sQ);
    rotate_rows(this_warp(), p, plan.count, keys, shared.sK);
    __syncwarp();
  }

  for (int c = 0; c < there; c += kSequences) {
    attend<S, 0>(
        shared.sQ.of_sequence(c, kRows), shared.sK.of_sequence(c, kRows), shared.sV.of_sequence(c, kRows), shared.weights, columns,
        [&](Scores<S>& rS) { mask_scores(p, TileMask<S>(p, neighbour(p, place, c), there - c), rS); },
        [&](const RowSums<S>& sums) {
          store_lse<S>(p, sums, [&](int s) { return c + s < there ? offset_of(p.lse, neighbour(p, place, c + s)) : -1; });
          ptx::copy_wait<0>();
        });
  }
  mover.store(p.out, queries, shared.sQ);
}

template <class T>
void launch_short_fwd(const SequenceAttentionFwd& p, const FwdPlan& plan, cudaStream_t stream) {
  if (launch_steady_fwd<T>(p, plan, stream)) return;
  dispatch_rows(plan.short_fwd.instance, [&](auto rows) {
    launch("short_attention_fwd_kernel", short_attention_fwd_kernel<T, decltype(rows)::value>, plan.short_fwd.shape, stream, p,
           plan.short_fwd.cut);
  });
}

}  // namespace vdiff::attention
