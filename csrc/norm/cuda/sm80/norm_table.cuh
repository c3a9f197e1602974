// norm_table: what a norm is to each channel, from the channels' statistics and the norm's vectors (images.h: Field).
//
//   A row of the table is of F frames that share a norm: one, or the T of a clip. A group has w = C / groups channels.
//
//   grid   (rows * groups, 1, 1)           a norm without statistics: one group, of all channels
//   block  a warp, or kThreads threads where a group has more than kSmallGroup statistics
//   smem   3 * 32 floats
//   bytes  8 F statistics a channel, read twice, the second time from the caches; 16 a channel written
//   acc    fp32
//   exact  never E[x^2] - E[x]^2: the groups' moments from the channels', merged after Chan, Golub and LeVeque 1979, whose counts
//          are all the same; the means from the first of them on, that their size cancels nothing
//   order  of a thread's own, then of the team's: fixed by the shape
//
//   mean = first + sum (mean_i - first) / (F w)                          (1)
//   rstd = 1 / sqrt(sum (var_i + (mean_i - mean)^2) / (F w) + eps)       (2)
//   mul = rstd * weight * (1 + scale), add = bias * (1 + scale) + shift  (3)
#pragma once

#include "norm/cuda/sm80/norm_places.cuh"

namespace vdiff::norms {

// table: written here. width: channels of a group; rows: of the table, a clip has rows_of_clip of them.
template <int = 0>
__global__ void __launch_bounds__(kThreads)
    norm_table_kernel(NormParams norm, float* table, int C, int width, int frames_of_row, int rows_of_clip) {
  __shared__ float warps[3 * kWarp];
  const Team team = this_block();
  const int groups = C / width, row = blockIdx.x / groups, first_c = blockIdx.x % groups * width;
  float mean = 0, rstd = 1;
  if (norm.stats) {
    const int count = frames_of_row * width;
    const float2* gStats = static_cast<const float2*>(norm.stats) + int64_t(row) * frames_of_row * C + first_c;  // (F, C)
    const auto stats = [&](int i) { return gStats[int64_t(i / width) * C + i % width]; };
    // (1) mean = first + sum (mean_i - first) / (F w)
    const float first = gStats->x;
    float sum = 0, squares = 0;
    for (int i = team.rank; i < count; i += team.size) sum += stats(i).x - first;
    const float apart = sum_of_team(sum, team, warps) / count;
    mean = first + apart;
    // (2) rstd = 1 / sqrt(sum (var_i + (mean_i - mean)^2) / (F w) + eps)
    for (int i = team.rank; i < count; i += team.size) {
      const float2 one = stats(i);
      const float deviation = one.x - first - apart;
      squares += one.y + deviation * deviation;
    }
    rstd = 1 / sqrtf(sum_of_team(squares, team, warps + kWarp) / count + float(norm.eps));
  }
  // (3) mul = rstd * weight * (1 + scale), add = bias * (1 + scale) + shift
  const auto at = [](const void* vector, int64_t i, float without) {
    return vector ? static_cast<const float*>(vector)[i] : without;
  };
  float* gRow = table + int64_t(row) * kFields * C;  // (kFields, C)
  for (int c = first_c + team.rank; c < first_c + width; c += team.size) {
    const int64_t of_clip = int64_t(row / rows_of_clip) * C + c;
    const float factor = 1 + at(norm.scale, of_clip, 0);
    gRow[kMean * C + c] = mean;
    gRow[kMul * C + c] = rstd * at(norm.weight, c, 1) * factor;
    gRow[kAdd * C + c] = at(norm.bias, c, 0) * factor + at(norm.shift, of_clip, 0);
    gRow[kRstd * C + c] = rstd;
  }
}

}  // namespace vdiff::norms
