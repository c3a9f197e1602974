#pragma once

#include "attention/cuda/sm80/bias_tables.cuh"
#include "attention/cuda/sm80/short_bwd.cuh"
#include "attention/cuda/sm80/short_launch.cuh"

namespace vdiff::attention {

// Units of one warp are `stride` apart, which makes their heads the same, and so far that the warps are no more than it takes.
template <class T, int kRows>
ShortPlan short_bwd_plan(const SequenceAttentionBwd& p) {
  const bool dbias = p.dbias.data != nullptr;
  ShortPlan plan = short_plan<T, kRows>(p, [&](int count) { return ShortBwdMemory<T, kRows>::bytes(count, p.D, dbias); });
  if (!dbias) return plan;
  int64_t period = p.N;  // units until heads repeat: N / gcd(N, count), for count is a power of two
  for (int count = plan.count; count > 1 && period % 2 == 0; count /= 2) period /= 2;
  const int64_t periods = ceil_div(plan.units, period);
  plan.stride = period * max_of<int64_t>(1, min_of(periods, kWarpsOfPartials / period));
  return plan;
}

// Of the partials: of each sequence of a warp's unit, the entries of a table.
inline int64_t short_partials(const ShortPlan& plan) { return plan.stride * plan.count; }

template <class T>
int64_t short_bwd_scratch(const SequenceAttentionBwd& p) {
  if (p.dbias.data == nullptr) return 0;
  int64_t floats = 0;
  dispatch_rows(p, [&](auto rows) { floats = short_partials(short_bwd_plan<T, decltype(rows)::value>(p)) * p.dbias.entries; });
  return floats * int64_t(sizeof(float));
}

template <class T>
void launch_short_bwd(const SequenceAttentionBwd& p, void* scratch, cudaStream_t stream) {
  dispatch_rows(p, [&](auto rows) {
    constexpr int kRows = decltype(rows)::value;
    const ShortPlan plan = short_bwd_plan<T, kRows>(p);
    const bool dbias = p.dbias.data != nullptr;
    auto* const partials = static_cast<float*>(scratch);
    launch("short_attention_bwd_kernel", short_attention_bwd_kernel<T, kRows>, ceil_div(plan.stride, plan.warps),
           plan.warps * kWarp, plan.warps * ShortBwdMemory<T, kRows>::bytes(plan.count, p.D, dbias), stream, p, plan, partials);
    if (!dbias) return;
    launch("short_bias_sum_kernel", short_bias_sum_kernel<>, ceil_div(p.N * p.dbias.entries, kWarp), kSlices * kWarp, 0, stream,
           partials, short_partials(plan), p.N, p.dbias.entries, p.dbias.data);
  });
}

}  // namespace vdiff::attention
