// What is added up of a convolution's tiles and frames, in an order that the shape fixes.    contract: params.h; plan.h
//
// conv_stats_merge: the tiles' means and variances into those of their frame, exactly (Chan, Golub and LeVeque 1979)
//
//   grid   (ceil(B*T*Co / 256), 1, 1)      a thread a frame and channel
//
//   mean = first + sum count (mean_i - first) / P;  var = sum count (var_i + (mean_i - mean)^2) / P        (1)
//
// conv_dmix: dmix = -sum of grad y over the tiles of a frame, or of a frame's line of tiles    (2)
//
//   grid   (B*T, 1, 1)                     a warp a frame
//
// conv_vectors: of grad over a frame (of common/cuda's pixel_sums), and over all frames
//
//   grid   (ceil(Co / 32), 1, 1)           kSlices warps, a lane a channel: a warp has every kSlices'th frame
//
//   dtemb = (1 - mix) sum over runs                                (3)
//   dbias = sum of dtemb over frames                               (4)
#pragma once

#include "common/cuda/launch.cuh"
#include "common/cuda/team.cuh"
#include "conv/cuda/planes.h"

namespace vdiff::convolution {

// partials (frames, tiles, Co, 2)
template <int = 0>
__global__ void __launch_bounds__(kSumThreads) conv_stats_merge_kernel(
    const float* partials, float* stats, int frames, int Co, int lines, int columns, PlaneTiles tiles) {
  const int64_t index = int64_t(blockIdx.x) * kSumThreads + threadIdx.x;
  if (index >= int64_t(frames) * Co) return;
  const int64_t frame = divide(index, Co);
  const float* const gPartial = partials + (frame * tiles.count() * Co + (index - frame * Co)) * 2;
  // (1) mean = first + sum count (mean_i - first) / P; var = sum count (var_i + (mean_i - mean)^2) / P
  const auto sum_of = [&](const auto& value) {
    float sum = 0;
    for (int down = 0; down < tiles.down; ++down) {
      const int height = min(tiles.lines, lines - down * tiles.lines);
      for (int over = 0; over < tiles.over; ++over) {
        const int width = min(tiles.columns, columns - over * tiles.columns);
        sum += float(height * width) * value(gPartial + int64_t(down * tiles.over + over) * Co * 2);
      }
    }
    return sum / (float(lines) * columns);
  };
  const float first = gPartial[0];
  const float apart = sum_of([=](const float* tile) { return tile[0] - first; });
  const float variance = sum_of([=](const float* tile) {
    const float deviation = tile[0] - first - apart;
    return tile[1] + deviation * deviation;
  });
  stats[2 * index] = first + apart;
  stats[2 * index + 1] = variance;
}

// dots (planes, tiles, tiles of Co, lines of a tile)
template <int = 0>
__global__ void __launch_bounds__(kWarp) conv_dmix_kernel(const float* dots, float* dmix, Tiling p, int tiles_co) {
  const int frame = blockIdx.x, plane = frame / p.frames_of_plane, in_tile = tiles_co * p.tiles.lines;
  const int64_t of_plane = int64_t(plane) * p.tiles.count() * in_tile;
  // (2) dmix = -sum
  float sum = 0;
  if (p.frames_of_plane == 1) {
    for (int i = lane_id(); i < p.tiles.count() * in_tile; i += kWarp) sum += dots[of_plane + i];
  } else {
    const int line = frame % p.frames_of_plane, down = line / p.tiles.lines;
    const float* const gLine = dots + of_plane + int64_t(down) * p.tiles.over * in_tile + line % p.tiles.lines;
    for (int i = lane_id(); i < p.tiles.over * tiles_co; i += kWarp) sum += gLine[int64_t(i) * p.tiles.lines];
  }
  sum = sum_of_team(sum, this_warp(), nullptr);
  if (lane_id() == 0) dmix[frame] = -sum;
}

// sums (B, runs, T, Co); dtemb (frames, Co), dbias (Co,): null where not wanted.
template <int = 0>
__global__ void __launch_bounds__(kSlices* kWarp)
    conv_vectors_kernel(const float* sums, const float* mix, float* dtemb, float* dbias, int frames, int frames_of_clip, int runs, int Co) {
  __shared__ float shared[kSlices * kWarp];
  const int slice = threadIdx.x / kWarp, c = blockIdx.x * kWarp + lane_id();
  float rSum[1] = {};
  for (int frame = slice; frame < frames && c < Co; frame += kSlices) {
    // (3) dtemb = (1 - mix) sum over runs
    float sum = 0;
    const int64_t first = int64_t(frame / frames_of_clip) * runs * frames_of_clip + frame % frames_of_clip;
    for (int run = 0; run < runs; ++run) sum += sums[(first + int64_t(run) * frames_of_clip) * Co + c];
    if (mix) sum *= 1 - mix[frame];
    if (dtemb) dtemb[int64_t(frame) * Co + c] = sum;
    rSum[0] += sum;
  }
  // (4) dbias = sum of dtemb over frames
  sum_of_rows(rSum, kWarp, shared);
  if (dbias && slice == 0 && c < Co) dbias[c] = rSum[0];
}

}  // namespace vdiff::convolution
