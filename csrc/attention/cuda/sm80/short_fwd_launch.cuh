#pragma once

#include "attention/cuda/sm80/short_fwd.cuh"
#include "attention/cuda/sm80/short_launch.cuh"

namespace vdiff::attention {

template <class T>
void launch_short_fwd(const SequenceAttentionFwd& p, cudaStream_t stream) {
  dispatch_rows(p, [&](auto rows) {
    constexpr int kRows = decltype(rows)::value;
    const auto unit_bytes = [&](int count) { return ShortFwdMemory<T, kRows>::bytes(count, p.D); };
    const ShortPlan plan = short_plan<T, kRows>(p, unit_bytes);
    launch("short_attention_fwd_kernel", short_attention_fwd_kernel<T, kRows>, ceil_div(plan.units, plan.warps),
           plan.warps * kWarp, plan.warps * unit_bytes(plan.count), stream, p, plan);
  });
}

}  // namespace vdiff::attention
