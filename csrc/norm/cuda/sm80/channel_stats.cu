#include "norm/cuda/sm80/channel_stats.cuh"

#include "common/cuda/launch.cuh"
#include "common/dispatch.h"
#include "norm/cuda/to_images.cuh"
#include "norm/cuda_kernels.h"

namespace vdiff {

using namespace statistics;

int64_t channel_stats_chunks(const ChannelStatsParams& p) { return plan_of(p).chunks; }

void launch_channel_stats(const ChannelStatsParams& p, void* partials, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const Plan plan = plan_of(p);
  StatsCall call{};
  call.x = image(p, p.x, p.stride_x);
  call.stats = p.stats;
  call.partials = partials;
  call.C = int(p.C), call.frames = int(p.B * p.T), call.frames_of_clip = int(p.T), call.pixels = int(p.H * p.W);
  call.columns = plan.columns, call.tiles = int(plan.tiles), call.chunks = int(plan.chunks);
  const bool aligned = norms::is_aligned(p, {p.x}, {&p.stride_x});
  dispatch(p.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto kernel = aligned ? channel_stats_kernel<T, true> : channel_stats_kernel<T, false>;
    launch("channel_stats_kernel", kernel, plan.stats, cuda_stream, call);
    launch("channel_stats_merge_kernel", channel_stats_merge_kernel<T>, plan.merge, cuda_stream, call);
  });
}

}  // namespace vdiff
