// long_attention_dkdv: the gradients of keys and values.   contract: DESIGN.md 4
//
//   grid   (groups * ceil(S / rows) * splits * chunks, 1, 1)  x alone. A group is one sequence, or those that share k and v, whose
//                                              tiles of queries one block adds up, or `chunks` blocks where groups are few
//   block  32 * warps threads                  a warp has 16 keys, whose scores it holds transposed: rows are keys
//   tile   16 * warps keys x kQueries queries: 32, float 16; D > kDkdvClass: a block has that many columns of dk and dv (a split)
//   smem   (2 * rows + 2 * stages * kQueries) * (D up to a multiple of 16, + 8) * 2 B (struct LongDkdvMemory);
//          D = 64: 36.3 KiB, + 4.3 for a bias
//   bytes  (2 L + 4 S) D elements a sequence where q and dout stay in L2
//   flops  8 L S D a sequence
//   async  the next tile of q and dout is on its way while this one is computed
//   acc    fp32; p and ds are rounded to T as operands
//   order  tiles of queries, then sequences, then chunks, each front to back: bit-equal in every run, on every GPU
//
//   for each tile of queries:
//     p   = exp(scale * q k^T + bias - lse)    (1)
//     dv += p^T dout                           (2)
//     dp  = dout v^T                           (3)
//     ds  = scale * p * (dp - delta)           (4)
//     dk += ds^T q                             (5)
//
// long_merge: dk and dv of groups in several chunks, the chunks added up in order, a thread an element.
#pragma once

#include "attention/cuda/sm80/long_sequences.cuh"

namespace vdiff::attention {

// The sequences whose gradients of k and v add up.
struct KeyGroups {
  int64_t count, members;

  __host__ __device__ explicit KeyGroups(const SequenceAttentionBwd& p)
      : count(p.shared_keys ? p.size[0] * p.N : p.sequences()), members(p.shared_keys ? p.size[1] : 1) {}

  __device__ int64_t sequence(const SequenceAttention& p, int64_t group, int64_t member) const {
    if (members == 1) return group;
    const int64_t b = divide(group, p.N);
    return (b * members + member) * p.N + group - b * p.N;
  }
};

// delta: rowsum(dout * out), as lse. partials (2, chunks, groups, S, D) fp32 of dk and dv, where there are several chunks.
template <class T, int kClass>
__global__ void __launch_bounds__(kLongWarps* kWarp, 2)
    long_attention_dkdv_kernel(SequenceAttentionBwd p, LongPlan plan, const float* delta, float* partials) {
  using Memory = LongDkdvMemory<T>;
  using S = typename Memory::S;
  constexpr int kQueries = Memory::kQueries;
  extern __shared__ __align__(16) char shared_memory[];
  const Memory shared(shared_memory, plan.warps, plan.stages, p.D, p.bias.data != nullptr);
  const KeyGroups groups(p);
  const int warp = threadIdx.x / kWarp;
  const int rows = kWarpRows * plan.warps;
  const int splits = int(p.D + kClass - 1) / kClass;
  const int64_t tile_split = divide(blockIdx.x, groups.count), group = blockIdx.x - tile_split * groups.count;
  const int64_t tile_chunk = divide(tile_split, splits), split = tile_split - tile_chunk * splits;
  const int64_t chunk = divide(tile_chunk, plan.tiles), tile = tile_chunk - chunk * plan.tiles;
  const int64_t per_chunk = (groups.members + plan.chunks - 1) / plan.chunks;
  const int64_t first_member = chunk * per_chunk, end_member = min(groups.members, first_member + per_chunk);
  const RowRange keys(int(tile) * rows, p.S, rows);
  const int first_column = int(split) * kClass;  // that this block has
  const int first_row = keys.first + kWarpRows * warp;  // of the warp
  const SharedTile<T> sK{shared.sK.row(kWarpRows * warp), shared.sK.ld}, sV{shared.sV.row(kWarpRows * warp), sK.ld};
  const int columns = padded_columns(p.D), own_columns = min(kClass, columns - first_column);

  // Tiles of queries, of one member after the other; causal keys are seen by none before theirs.
  const int64_t first_tile = p.causal ? min(keys.first, int(p.L)) / kQueries : 0;
  const int64_t tiles = (p.L + kQueries - 1) / kQueries - first_tile;
  const SequenceIndex first_place = sequence_index(p, groups.sequence(p, group, 0));
  uint32_t seen = 0;
  for (int j = 0; j < rows; j += kWarp) seen |= seen_keys(p, first_place.index[0], keys.first + j);
  const int64_t steps = seen == 0 ? 0 : max(int64_t(0), end_member - first_member) * tiles;
  Mover<T> mover(this_block(), p, 1);
  const auto load_queries = [&](int64_t step, int stage) {
    const int64_t member = divide(step, tiles);
    if (step == member * tiles) mover.go_to(sequence_index(p, groups.sequence(p, group, first_member + member)));
    const RowRange queries(int(first_tile + step - member * tiles) * kQueries, p.L, kQueries);
    mover.load(p.q, queries, SharedTile<T>{shared.sQ.row(stage * kQueries), sK.ld});
    mover.load(p.grad_out, queries, SharedTile<T>{shared.sG.row(stage * kQueries), sK.ld});
  };

  mover.go_to(first_place);
  mover.load(p.k, keys, shared.sK);
  mover.load(p.v, keys, shared.sV);
  if (steps > 0) load_queries(0, 0);
  ptx::copy_commit();
  mover.clear_unused(shared.sK, rows);
  mover.clear_unused(shared.sV, rows);
  mover.clear_unused(shared.sQ, plan.stages * kQueries);
  mover.clear_unused(shared.sG, plan.stages * kQueries);

  Accumulators<S, kClass> rDK = {}, rDV = {};
  for (int64_t step = 0; step < steps; ++step) {
    const int stage = plan.stages == 2 ? int(step % 2) : 0;
    const int64_t member = divide(step, tiles);
    const int first = int(first_tile + step - member * tiles) * kQueries;
    const int64_t sequence = groups.sequence(p, group, first_member + member);
    const SharedTile<T> sQ{shared.sQ.row(stage * kQueries), sK.ld}, sG{shared.sG.row(stage * kQueries), sK.ld};
    const ScoreRows<S, true> score_rows(p, sequence, first_row);
    ptx::copy_wait<0>();
    __syncthreads();  // the tile is there; nobody reads the one before any more
    if (plan.stages == 2 && step + 1 < steps) load_queries(step + 1, 1 - stage);
    ptx::copy_commit();
    if (p.rotary != nullptr) {
      if (step == 0) rotate_rows(this_block(), p, 1, keys, shared.sK);
      rotate_rows(this_block(), p, 1, {first, p.L, kQueries}, sQ);
    }
    bool windowed = false;
    if (p.bias.data != nullptr) windowed = load_bias_part<kQueries, true>(p, score_rows.place.n, keys, first, shared.bias);
    for (int i = threadIdx.x; i < kQueries; i += blockDim.x) {
      SequenceRows deltas = p.lse;
      deltas.data = const_cast<float*>(delta);
      shared.lse[i] = shift_of(row_value(p, p.lse, score_rows.place, first + i, 0));
      shared.delta[i] = row_value(p, deltas, score_rows.place, first + i, 0);
    }
    __syncthreads();

    // (1) p = exp(scale * q k^T + bias - lse), transposed
    Scores<S> rP, rS;
    scores<S>(rP, sK, sQ, columns);
    score_rows.finish(p, rP[0], first, shared.bias, windowed);
#pragma unroll
    for (int n = 0; n < S::kN; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) rP[0][n][e] = exp_above(rP[0][n][e], shared.lse[Element<S>::key(n, e)]);
    }

    // (2) dv += p^T dout
    float* const scratch = shared.weights + warp * kWeightsFloats<S, T>;
    const Weights<S, T> weights(rP, scratch);
    accumulate<S, kClass>(rDV, weights, sG.data + first_column, sK.ld, own_columns);

    // (3) dp = dout v^T, (4) ds = scale * p * (dp - delta), transposed
    scores<S>(rS, sV, sG, columns);  // after which nobody reads p in the scratch any more
#pragma unroll
    for (int n = 0; n < S::kN; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) rS[0][n][e] = p.scale * rP[0][n][e] * (rS[0][n][e] - shared.delta[Element<S>::key(n, e)]);
    }

    // (5) dk += ds^T q
    const Weights<S, T> gradients(rS, scratch);
    accumulate<S, kClass>(rDK, gradients, sQ.data + first_column, sK.ld, own_columns);
    if (plan.stages == 1) {
      __syncthreads();
      if (step + 1 < steps) load_queries(step + 1, 0);
      ptx::copy_commit();
    }
  }

  ptx::copy_wait<0>();
  __syncthreads();  // k and v are there even where nobody looked at them: dk and dv go in their place
  if (plan.chunks > 1) {
    const int64_t half = plan.chunks * groups.count * p.S * p.D;
    float* const gDK = partials + (chunk * groups.count + group) * p.S * p.D;
    const auto store_partial = [&](float* to, int row, int column, float first, float second) {
      const int64_t j = first_row + row;
      const int d = first_column + column;
      if (j < p.S && d < p.D) to[j * p.D + d] = first;
      if (j < p.S && d + 1 < p.D) to[j * p.D + d + 1] = second;
    };
#pragma unroll
    for (int c = 0; c < kClass / kColumns; ++c) {
      for_each_pair(rDK[c], c * kColumns, [&](int row, int column, float a, float b) { store_partial(gDK, row, column, a, b); });
      for_each_pair(rDV[c], c * kColumns, [&](int row, int column, float a, float b) { store_partial(gDK + half, row, column, a, b); });
    }
    return;
  }
#pragma unroll
  for (int c = 0; c < kClass / kColumns; ++c) {
    const int d = first_column + c * kColumns;
    if (d >= columns) continue;
    for_each_pair(rDK[c], d, [&](int row, int column, float first, float second) {
      rotate_back(p, first_row + row, column, first, second);
      store_pair(sK.row(row) + column, first, second);
    });
    for_each_pair(rDV[c], d, [&](int row, int column, float first, float second) { store_pair(sV.row(row) + column, first, second); });
  }
  __syncthreads();
  Mover<T> out(this_block(), p, 1, first_column, kClass);
  out.go_to(first_place);
  out.store(p.dk, keys, shared.sK);
  out.store(p.dv, keys, shared.sV);
}

// Rotation needs one sequence a group, so chunks have none.
template <class T>
__global__ void __launch_bounds__(kMergeThreads) long_merge_kernel(SequenceAttentionBwd p, LongPlan plan, const float* partials) {
  const KeyGroups groups(p);
  const int64_t size = groups.count * p.S * p.D;
  const int64_t index = int64_t(blockIdx.x) * kMergeThreads + threadIdx.x;
  if (index >= 2 * size) return;
  const bool is_dv = index >= size;
  const int64_t element = index - (is_dv ? size : 0);
  const float* gPartial = partials + (is_dv ? plan.chunks * size : 0) + element;
  float sum = 0;
  for (int64_t chunk = 0; chunk < plan.chunks; ++chunk) sum += gPartial[chunk * size];
  const int64_t row = divide(element, p.D), group = divide(row, p.S);
  const SequenceRows& rows = is_dv ? p.dv : p.dk;
  const SequenceIndex place = sequence_index(p, groups.sequence(p, group, 0));
  T* const to = static_cast<T*>(rows.data) + offset_of(rows, place) + rows.row.at(row - group * p.S) + element - row * p.D;
  store_acc(to, sum);
}

}  // namespace vdiff::attention
