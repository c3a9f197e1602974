#include "norm/cuda/sm80/channel_stats.h"

#include "common/cuda/launch.h"
#include "common/dispatch.h"
#include "norm/cuda/sm80/channel_stats.cuh"

namespace vdiff {

namespace {

using namespace statistics;

template <class T>
void launch(ChannelStatsParams p, void* partials, cudaStream_t stream) {
  const int64_t frames = p.B * p.T;
  const int64_t chunks = channel_stats_chunks(p);
  int channels = 1;
  while (channels < p.C && channels < kMaxChannels) channels *= 2;
  const int64_t tiles = ceil_div(p.C, channels);
  if (p.stride_x.h == p.W * p.stride_x.w || p.H == 1) {  // rows follow one another evenly: one long row
    p.W *= p.H;
    p.H = 1;
  }
  if (p.W == 0) {  // the kernel divides by it
    p.W = 1;
    p.H = 0;
  }

  auto* const typed_partials = static_cast<acc_t<T>*>(partials);

  const char* name = "channel_stats_kernel";
  const unsigned grid = grid_x(name, frames * chunks * tiles);
  channel_stats_kernel<T><<<grid, kThreads, 0, stream>>>(p, typed_partials, channels, tiles, chunks);
  check_launch(name, grid, kThreads, 0);
  if (chunks == 1) return;

  const char* merge_name = "channel_stats_merge_kernel";
  const unsigned merge_grid = grid_x(merge_name, ceil_div(frames * p.C, kThreads));
  channel_stats_merge_kernel<T><<<merge_grid, kThreads, 0, stream>>>(p, typed_partials, chunks);
  check_launch(merge_name, merge_grid, kThreads, 0);
}

}  // namespace

int64_t channel_stats_chunks(const ChannelStatsParams& p) {
  const int64_t chunks = ceil_div(p.H * p.W, kChunkPixels);
  return chunks > 1 ? chunks : 1;
}

void launch_channel_stats(const ChannelStatsParams& p, void* partials, void* stream) {
  if (p.B * p.T * p.C == 0) return;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  dispatch(p.dtype, [&](auto tag) { launch<typename decltype(tag)::type>(p, partials, cuda_stream); });
}

}  // namespace vdiff
