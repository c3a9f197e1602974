#include "norm/cuda/sm80/channel_stats.h"

#include "common/cuda/launch.cuh"
#include "common/dispatch.h"
#include "norm/cuda/plan.h"
#include "norm/cuda/sm80/channel_stats.cuh"

namespace vdiff {

namespace {

using namespace statistics;

template <class T>
void launch_kernels(ChannelStatsParams p, const Plan& plan, void* partials, cudaStream_t stream) {
  if (p.stride_x.h == p.W * p.stride_x.w || p.H == 1) {  // rows follow one another evenly: one long row
    p.W *= p.H;
    p.H = 1;
  }
  if (p.W == 0) {  // the kernel divides by it
    p.W = 1;
    p.H = 0;
  }
  auto* const typed_partials = static_cast<acc_t<T>*>(partials);
  launch("channel_stats_kernel", channel_stats_kernel<T>, plan.stats, stream, p, typed_partials, plan.channels, plan.tiles,
         plan.chunks);
  launch("channel_stats_merge_kernel", channel_stats_merge_kernel<T>, plan.merge, stream, p, typed_partials, plan.chunks);
}

}  // namespace

int64_t channel_stats_chunks(const ChannelStatsParams& p) { return plan_of(p).chunks; }

void launch_channel_stats(const ChannelStatsParams& p, void* partials, void* stream) {
  const Plan plan = plan_of(p);
  dispatch(p.dtype, [&](auto tag) {
    launch_kernels<typename decltype(tag)::type>(p, plan, partials, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace vdiff
