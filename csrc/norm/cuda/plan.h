// How channel_stats runs on a GPU, decided here alone, by the shape alone: how frames and channels are cut into blocks, and what
// scratch there is. No CUDA header, no torch, no STL.
#pragma once

#include "common/cuda/launch_shape.h"
#include "norm/params.h"

namespace vdiff::statistics {

constexpr int kThreads = 256;
constexpr int kChunkPixels = 1024;
constexpr int kMaxChannels = 32;

struct Plan {
  int64_t chunks;     // of a frame, 1 or more; several have partials (B*T, chunks, C, 2) acc in the scratch
  int channels;       // of a block: a power of two
  int64_t tiles;      // of so many channels
  LaunchShape stats;  // static shared memory alone
  LaunchShape merge;  // no blocks: there is one chunk
};

inline Plan plan_of(const ChannelStatsParams& p) {
  Plan plan{};
  const int64_t frames = p.B * p.T;
  plan.chunks = max_of<int64_t>(1, ceil_div(p.H * p.W, kChunkPixels));
  plan.channels = 1;
  while (plan.channels < p.C && plan.channels < kMaxChannels) plan.channels *= 2;
  plan.tiles = ceil_div(p.C, plan.channels);
  plan.stats = {frames * plan.chunks * plan.tiles, kThreads, 0};
  if (plan.chunks > 1) plan.merge = {ceil_div(frames * p.C, kThreads), kThreads, 0};
  return plan;
}

}  // namespace vdiff::statistics
