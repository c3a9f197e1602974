// steady_attention_bwd: short_attention_bwd of the usual calls (steady_sequences.cuh).          contract: DESIGN.md 4
//
//   grid   (ceil(units * step / warps), 1, 1)  a warp has the same heads at every step-th place: 8 of them of a large call, and more
//                                              where there is a bias gradient, of which each warp writes a partial
//   block  32 * warps threads                  a warp is alone: no barrier of the block
//   smem   two stages of short_attention_bwd's warp; T = 16, D = 64: 18 KiB. The bias gradient is in registers
//   bytes, flops, acc, order as short_attention_bwd
//   limits strides of places below 2^31 bytes (is_steady); else short_attention_bwd
#pragma once

#include "attention/cuda/sm80/instantiations.h"
#include "attention/cuda/sm80/short_gradients.cuh"
#include "attention/cuda/sm80/steady_sequences.cuh"
#include "common/cuda/launch.cuh"

namespace vdiff::attention {

struct SteadyBwd {
  SteadyRows q, k, v, grad, dq, dk, dv;
  Divisor by_units;
};

// partials: (warps, count, entries of a table).
template <class T, int kRows, int kD>
__global__ void __launch_bounds__(kMaxWarps* kWarp, kRows == 32 ? 2 : 3)
    steady_attention_bwd_kernel(SequenceAttentionBwd p, SteadyBwd call, SteadyPlan plan, float* partials) {
  using S = ShortShape<kRows>;
  using Memory = ShortBwdMemory<T, kRows, BiasTiles<S>>;
  constexpr int kCount = kSteadyCount<kRows, kD>, kSequences = S::kPaired ? 2 : 1;  // of a unit, of a tile
  extern __shared__ __align__(16) char shared_memory[];
  const int warp = threadIdx.x / kWarp, unit = blockIdx.x * plan.warps + warp, first = call.by_units.quotient(unit);
  if (first >= plan.step) return;
  const int n = (unit - first * plan.units) * kCount;
  const int64_t stage_bytes = Memory(shared_memory, kCount, kD, false).end - shared_memory;
  const auto memory = [&](int stage) { return Memory(shared_memory + (2 * warp + stage) * stage_bytes, kCount, kD, false); };
  const int queries = int(p.L), keys = int(p.S);

  const SteadyLane<T, kRows, kCount, kD> lane;
  const char* const q = lane.first(call.q, n);
  const char* const k = lane.first(call.k, n);
  const char* const v = lane.first(call.v, n);
  const char* const grad = lane.first(call.grad, n);
  char* const dq = lane.first(call.dq, n);
  char* const dk = lane.first(call.dk, n);
  char* const dv = lane.first(call.dv, n);
  const auto load = [&](int place, int stage) {
    const Memory shared = memory(stage);
    const SequenceIndex index = place_index(p, place, n);
    lane.load(q + place_offset(call.q, index), call.q.row, queries, shared.sQ);
    lane.load(k + place_offset(call.k, index), call.k.row, keys, shared.sK);
    lane.load(v + place_offset(call.v, index), call.v.row, keys, shared.sV);
    lane.load(grad + place_offset(call.grad, index), call.grad.row, queries, shared.sG);
  };
  for (int stage = 0; stage < 2; ++stage) {
    const Memory shared = memory(stage);
    clear_beyond<kD, kRows, kCount, T>({shared.sQ, shared.sK, shared.sV, shared.sG});
  }
  const SteadyBias<S, kCount> bias(p, n);
  Scores<S> rDbias[kCount / kSequences] = {};

  for_places(plan, first, load, [&](int place, int stage) {
    const Memory shared = memory(stage);
    const SequenceIndex index = place_index(p, place, n);
    if (p.rotary != nullptr) {
      rotate_rows(this_warp(), p, kCount, RowRange(0, p.L, kRows), shared.sQ);
      rotate_rows(this_warp(), p, kCount, RowRange(0, p.S, kRows), shared.sK);
    }
#pragma unroll
    for (int c = 0; c < kCount; c += kSequences) {
      tile_gradients<S, kD>(
          p, shared.sQ.of_sequence(c, kRows), shared.sK.of_sequence(c, kRows), shared.sV.of_sequence(c, kRows),
          shared.sG.of_sequence(c, kRows), shared.p, shared.ds, padded_columns(kD),
          [&](Scores<S>& rS) { bias.mask(p, index, c, rS); },
          [&](int m, int j, int e, float ds) { rDbias[c / kSequences][m][j][e] += ds; });
    }
    lane.store(dq + place_offset(call.dq, index), call.dq.row, queries, shared.sQ);
    lane.store(dk + place_offset(call.dk, index), call.dk.row, keys, shared.sK);
    lane.store(dv + place_offset(call.dv, index), call.dv.row, keys, shared.sG);
  });

  if (p.dbias.data == nullptr) return;
  ptx::copy_wait<0>();
  const BiasTiles<S> tiles{reinterpret_cast<float*>(memory(0).sQ.data)};
#pragma unroll
  for (int tile = 0; tile < kCount / kSequences; ++tile) {
#pragma unroll
    for (int m = 0; m < S::kM; ++m) {
#pragma unroll
      for (int j = 0; j < S::kN; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) tiles.own(tile, m, j, e) = rDbias[tile][m][j][e];
      }
    }
  }
  store_partial(p, tiles, unit, kCount, partials);
}

// Of how many partials of the bias' gradient there are; 0: it does not serve the call.
template <class T>
int64_t launch_steady_bwd(const SequenceAttentionBwd& p, const BwdPlan& plan, float* partials, cudaStream_t stream) {
  const auto& steady = plan.steady_bwd;
  if (steady.instance == 0 || p.vector_bytes != 16) return 0;
  for (const SequenceRows* rows : {&p.q, &p.grad_out, &p.dq}) {
    if (!is_steady(p, *rows, p.L)) return 0;
  }
  for (const SequenceRows* rows : {&p.k, &p.v, &p.dk, &p.dv}) {
    if (!is_steady(p, *rows, p.S)) return 0;
  }
  const auto rows_of = [&](const SequenceRows& rows) { return steady_rows(p, rows); };
  const SteadyBwd call = {rows_of(p.q),  rows_of(p.k),  rows_of(p.v), rows_of(p.grad_out), rows_of(p.dq),
                          rows_of(p.dk), rows_of(p.dv), Divisor(steady.cut.units)};
  dispatch_steady<T>(max_of(p.L, p.S), p.D, [&](auto rows, auto columns) {
    const auto kernel = steady_attention_bwd_kernel<T, decltype(rows)::value, decltype(columns)::value>;
    launch("steady_attention_bwd_kernel", kernel, steady.shape, stream, p, call, steady.cut, partials);
  });
  return steady.cut.partials();
}

}  // namespace vdiff::attention
