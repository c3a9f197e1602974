#pragma once

#include "attention/cuda/sm80/bias_tables.cuh"
#include "attention/cuda/sm80/long_bwd_bias.cuh"
#include "attention/cuda/sm80/long_bwd_dkdv.cuh"
#include "attention/cuda/sm80/long_bwd_dq.cuh"
#include "attention/cuda/sm80/long_launch.cuh"

namespace vdiff::attention {

// ------------------------------------------------------------------------------------------------------------------ cuts

template <class T>
int64_t dkdv_splits(const SequenceAttentionBwd& p) {
  return ceil_div(p.D, p.D <= 64 ? 64 : kDkdvClass<T>);
}

template <class T>
LongPlan dkdv_plan(const SequenceAttentionBwd& p) {
  LongPlan plan = long_plan(p.S, [&](int warps, int stages) { return LongDkdvMemory<T>::bytes(warps, stages, p.D, p.bias.data != nullptr); });
  const KeyGroups groups(p);
  plan.chunks = chunks_of(groups.count * plan.tiles * dkdv_splits<T>(p), groups.members);
  return plan;
}

template <class T>
int64_t dbias_bytes(int warps, int64_t D) {
  return D <= 128 ? LongBiasMemory<T, 128>::bytes(warps, D) : LongBiasMemory<T, 256>::bytes(warps, D);
}

template <class T>
LongPlan dbias_plan(const SequenceAttentionBwd& p) {
  LongPlan plan = long_plan(p.L, [&](int warps, int) { return dbias_bytes<T>(warps, p.D); });
  plan.chunks = chunks_of(p.N * plan.tiles, p.size[0] * p.size[1] * p.size[2]);
  return plan;
}

// Tables that are added up at the end.
inline int64_t dbias_tables(const SequenceAttentionBwd& p, const LongPlan& plan) {
  return p.dbias.relative ? plan.chunks * plan.tiles : plan.chunks;
}

// --------------------------------------------------------------------------------------------------------------- scratch

// In the scratch: delta, then what dk and dv are merged of, and, in the same place after that, the tables of the bias gradient.
inline int64_t delta_floats(const SequenceAttentionBwd& p) { return ceil_div(p.sequences() * p.L, 4) * 4; }

template <class T>
int64_t long_bwd_scratch(const SequenceAttentionBwd& p) {
  int64_t floats = 0;
  const LongPlan plan = dkdv_plan<T>(p);
  if (plan.chunks > 1) floats = 2 * plan.chunks * KeyGroups(p).count * p.S * p.D;
  if (p.dbias.data != nullptr) {
    const int64_t tables = dbias_tables(p, dbias_plan<T>(p));
    if (tables > 1) floats = max_of(floats, tables * p.N * p.dbias.entries);
  }
  return (delta_floats(p) + floats) * int64_t(sizeof(float));
}

// -------------------------------------------------------------------------------------------------------------- launches

template <class T>
void launch_dq(const SequenceAttentionBwd& p, float* delta, cudaStream_t stream) {
  dispatch_class(p.D, [&](auto tag) {
    constexpr int kClass = decltype(tag)::value;
    const auto bytes = [&](int warps, int) { return LongDqMemory<T, kClass>::bytes(warps, p.D, p.bias.data != nullptr); };
    const LongPlan plan = long_plan(p.L, bytes);
    launch("long_attention_dq_kernel", long_attention_dq_kernel<T, kClass>, p.sequences() * plan.tiles, plan.warps * kWarp,
           bytes(plan.warps, 1), stream, p, plan, delta);
  });
}

template <class T>
void launch_dkdv(const SequenceAttentionBwd& p, const float* delta, float* partials, cudaStream_t stream) {
  const LongPlan plan = dkdv_plan<T>(p);
  const KeyGroups groups(p);
  const auto kernel = p.D <= 64 ? long_attention_dkdv_kernel<T, 64> : long_attention_dkdv_kernel<T, kDkdvClass<T>>;
  launch("long_attention_dkdv_kernel", kernel, groups.count * plan.tiles * dkdv_splits<T>(p) * plan.chunks, plan.warps * kWarp,
         LongDkdvMemory<T>::bytes(plan.warps, plan.stages, p.D, p.bias.data != nullptr), stream, p, plan, delta, partials);
  if (plan.chunks == 1) return;
  launch("long_merge_kernel", long_merge_kernel<T>, ceil_div(2 * groups.count * p.S * p.D, kMergeThreads), kMergeThreads, 0, stream,
         p, plan, partials);
}

template <class T>
void launch_dbias(const SequenceAttentionBwd& p, const float* delta, float* scratch, cudaStream_t stream) {
  const LongPlan plan = dbias_plan<T>(p);
  const int64_t tables = dbias_tables(p, plan), size = p.N * p.dbias.entries;
  float* const target = tables > 1 ? scratch : p.dbias.data;
  const auto kernel = p.D <= 128 ? long_attention_dbias_kernel<T, 128> : long_attention_dbias_kernel<T, 256>;
  launch("long_attention_dbias_kernel", kernel, p.N * plan.tiles * plan.chunks, plan.warps * kWarp, dbias_bytes<T>(plan.warps, p.D),
         stream, p, plan, delta, target);
  if (tables == 1) return;
  launch("bias_sum_kernel", bias_sum_kernel<>, ceil_div(size, kReduceThreads), kReduceThreads, 0, stream, scratch, tables, size,
         p.dbias.data);
}

template <class T>
void launch_long_bwd(const SequenceAttentionBwd& p, void* scratch, cudaStream_t stream) {
  auto* const delta = static_cast<float*>(scratch);
  float* const rest = delta + delta_floats(p);
  launch_dq<T>(p, delta, stream);
  launch_dkdv<T>(p, delta, rest, stream);
  if (p.dbias.data != nullptr) launch_dbias<T>(p, delta, rest, stream);
}

}  // namespace vdiff::attention
