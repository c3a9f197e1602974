// steady_attention_fwd: short_attention_fwd of the usual calls (steady_sequences.cuh).          contract: DESIGN.md 4
//
//   grid   (ceil(units * step / warps), 1, 1)  a warp has the same heads at every step-th place: 8 of them of a large call
//   block  32 * warps threads                  a warp is alone: no barrier of the block
//   smem   two stages of short_attention_fwd's warp; T = 16, D = 64: 13.5 KiB
//   bytes, flops, acc as short_attention_fwd   memory-bound on every GPU we build for
//   limits strides of places below 2^31 bytes (is_steady); else short_attention_fwd
#pragma once

#include "attention/cuda/sm80/instantiations.h"
#include "attention/cuda/sm80/steady_sequences.cuh"
#include "common/cuda/launch.cuh"

namespace vdiff::attention {

struct SteadyFwd {
  SteadyRows q, k, v, out;
  Divisor by_units;
};

template <class T, int kRows, int kD>
__global__ void __launch_bounds__(kMaxWarps* kWarp, kRows == 32 ? 3 : 4)
    steady_attention_fwd_kernel(SequenceAttentionFwd p, SteadyFwd call, SteadyPlan plan) {
  using S = ShortShape<kRows>;
  using Memory = ShortFwdMemory<T, kRows>;
  constexpr int kCount = kSteadyCount<kRows, kD>, kSequences = S::kPaired ? 2 : 1;  // of a unit, of a tile
  extern __shared__ __align__(16) char shared_memory[];
  const int warp = threadIdx.x / kWarp, unit = blockIdx.x * plan.warps + warp, first = call.by_units.quotient(unit);
  if (first >= plan.step) return;
  const int n = (unit - first * plan.units) * kCount;
  const int64_t stage_bytes = Memory(shared_memory, kCount, kD).end - shared_memory;
  const auto memory = [&](int stage) { return Memory(shared_memory + (2 * warp + stage) * stage_bytes, kCount, kD); };
  const int queries = int(p.L), keys = int(p.S);

  const SteadyLane<T, kRows, kCount, kD> lane;
  const char* const q = lane.first(call.q, n);
  const char* const k = lane.first(call.k, n);
  const char* const v = lane.first(call.v, n);
  char* const out = lane.first(call.out, n);
  const auto load = [&](int place, int stage) {
    const Memory shared = memory(stage);
    const SequenceIndex index = place_index(p, place, n);
    lane.load(q + place_offset(call.q, index), call.q.row, queries, shared.sQ);
    lane.load(k + place_offset(call.k, index), call.k.row, keys, shared.sK);
    lane.load(v + place_offset(call.v, index), call.v.row, keys, shared.sV);
  };
  for (int stage = 0; stage < 2; ++stage) {
    const Memory shared = memory(stage);
    clear_beyond<kD, kRows, kCount, T>({shared.sQ, shared.sK, shared.sV});
  }
  const SteadyBias<S, kCount> bias(p, n);

  for_places(plan, first, load, [&](int place, int stage) {
    const Memory shared = memory(stage);
    const SequenceIndex index = place_index(p, place, n);
    if (p.rotary != nullptr) {
      rotate_rows(this_warp(), p, kCount, RowRange(0, p.L, kRows), shared.sQ);
      rotate_rows(this_warp(), p, kCount, RowRange(0, p.S, kRows), shared.sK);
    }
#pragma unroll
    for (int c = 0; c < kCount; c += kSequences) {
      attend<S, kD>(
          shared.sQ.of_sequence(c, kRows), shared.sK.of_sequence(c, kRows), shared.sV.of_sequence(c, kRows), shared.weights,
          padded_columns(kD), [&](Scores<S>& rS) { bias.mask(p, index, c, rS); },
          [&](const RowSums<S>& sums) {
            store_lse<S>(p, sums, [&](int s) { return offset_of(p.lse, index) + (c + s) * p.lse.stride_n; });
          });
    }
    lane.store(out + place_offset(call.out, index), call.out.row, queries, shared.sQ);
  });
}

// Whether it serves the call.
template <class T>
bool launch_steady_fwd(const SequenceAttentionFwd& p, const FwdPlan& plan, cudaStream_t stream) {
  const auto& steady = plan.steady_fwd;
  if (steady.instance == 0 || p.vector_bytes != 16) return false;
  if (!is_steady(p, p.q, p.L) || !is_steady(p, p.k, p.S) || !is_steady(p, p.v, p.S) || !is_steady(p, p.out, p.L)) return false;
  const auto rows_of = [&](const SequenceRows& rows) { return steady_rows(p, rows); };
  const SteadyFwd call = {rows_of(p.q), rows_of(p.k), rows_of(p.v), rows_of(p.out), Divisor(steady.cut.units)};
  dispatch_steady<T>(max_of(p.L, p.S), p.D, [&](auto rows, auto columns) {
    const auto kernel = steady_attention_fwd_kernel<T, decltype(rows)::value, decltype(columns)::value>;
    launch("steady_attention_fwd_kernel", kernel, steady.shape, stream, p, call, steady.cut);
  });
  return true;
}

}  // namespace vdiff::attention
