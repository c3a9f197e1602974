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
  const TeamPixel at(p);
  const T* gX = p.x.frame<T>(at.frame, p.frames_of_clip) + p.x.pixels.at(at.pixel);
  uint4 rX[kFwdPieces] = {};
  for_pieces<T, kFwdPieces>(at.team, p.C, [&](int j, int c) {
    if (at.is_there && c < p.C) rX[j] = load_bits<T, kAligned>(gX + c, p.C - c);
  });
  // (1) mean = sum x / C; rstd = 1 / sqrt(sum (x - mean)^2 / C + eps)
  const Moments of_pixel = moments_of_pixel<T, kAligned>(rX, at.team, p, warps);
  if (at.is_there && at.team.rank == 0) moments[at.index] = {of_pixel.mean, of_pixel.rstd};
}

}  // namespace vdiff::norms
