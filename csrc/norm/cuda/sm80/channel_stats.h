// The CUDA kernels of channel_stats, as the torch side calls them. No torch, no STL.
#pragma once

#include "norm/params.h"

namespace vdiff {

// Into how many chunks the plan of p cuts a frame: 1 or more.
int64_t channel_stats_chunks(const ChannelStatsParams& p);

// The launches of that plan. partials (B*T, chunks, C, 2) acc: scratch, unused where there is one chunk. stream is a
// cudaStream_t.
void launch_channel_stats(const ChannelStatsParams& p, void* partials, void* stream);

}  // namespace vdiff
