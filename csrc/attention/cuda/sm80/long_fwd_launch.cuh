#pragma once

#include "attention/cuda/sm80/long_fwd.cuh"
#include "attention/cuda/sm80/long_launch.cuh"

namespace vdiff::attention {

template <class T>
void launch_long_fwd(const SequenceAttentionFwd& p, cudaStream_t stream) {
  dispatch_class(p.D, [&](auto tag) {
    constexpr int kClass = decltype(tag)::value;
    const auto bytes = [&](int warps, int) { return LongFwdMemory<T, kClass>::bytes(warps, p.D, p.bias.data != nullptr); };
    const LongPlan plan = long_plan(p.L, bytes);
    launch("long_attention_fwd_kernel", long_attention_fwd_kernel<T, kClass>, p.sequences() * plan.tiles, plan.warps * kWarp,
           bytes(plan.warps, 1), stream, p, plan);
  });
}

}  // namespace vdiff::attention
