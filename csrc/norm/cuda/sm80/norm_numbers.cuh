// pixel_moments: mean and rstd of each pixel over its channels, of layer and rms norms: what a product that normalises its
// operand itself must know before.                                             contract: cuda_kernels.h, NormNumbers
//
//   grid, block, smem as norm_act_pixels_fwd   a team of threads a pixel
//   bytes  x read once, 8 a pixel written
//   flops  4 an element                        memory-bound
//   limits C <= kMaxChannels
//
//   mean = sum x / C; rstd = 1 / sqrt(sum (x - mean)^2 / C + eps)        (1) over the team; rms: mean = 0
#pragma once

#include "norm/cuda/sm80/norm_places.cuh"

namespace vdiff::norms {

template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads) pixel_moments_kernel(NormCall p, float2* moments) {
  __shared__ float warps[2 * kWarp];
  const Team team = this_team(p.cut.columns);
  const int64_t index = int64_t(blockIdx.x) * (kThreads / p.cut.columns) + threadIdx.x / p.cut.columns;
  const bool is_there = index < int64_t(p.frames) * p.pixels;
  const int frame = is_there ? int(divide(index, p.pixels)) : 0;
  const int pixel = int(index - int64_t(frame) * p.pixels);
  const T* gX = p.x.frame<T>(frame, p.frames_of_clip) + p.x.pixels.at(pixel);
  uint4 rX[kFwdPieces] = {};
  for_pieces<T, kFwdPieces>(team, p.C, [&](int j, int c) {
    if (is_there && c < p.C) rX[j] = load_bits<T, kAligned>(gX + c, p.C - c);
  });
  // (1) mean = sum x / C; rstd = 1 / sqrt(sum (x - mean)^2 / C + eps)
  const Moments of_pixel = moments_of_pixel<T, kAligned>(rX, team, p, warps);
  if (is_there && team.rank == 0) moments[index] = {of_pixel.mean, of_pixel.rstd};
}

}  // namespace vdiff::norms
