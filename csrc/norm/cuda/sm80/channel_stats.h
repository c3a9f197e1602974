// The CUDA kernels of this folder, as the torch side calls them. No torch, no STL.
#pragma once

#include "norm/params.h"

namespace vdiff {

// How many pieces a frame is cut into, by its shape alone: 1 or more.
int64_t channel_stats_chunks(const ChannelStatsParams& p);

// partials (B*T, chunks, C, 2) acc: scratch, unused where there is one chunk. stream is a cudaStream_t.
void launch_channel_stats(const ChannelStatsParams& p, void* partials, void* stream);

}  // namespace vdiff
