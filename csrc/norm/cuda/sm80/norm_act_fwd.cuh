// norm_act forward: h = act(norm(x)) + residual.                               contract: DESIGN.md 4; plan.h: the table
//
//   P = H*W pixels a frame, V = 16 / sizeof(T) channels a piece: what a thread moves at once.
//
// norm_act_channels_fwd: group norms, whose table is known, and none
//
//   grid   (B*T * runs * tiles, 1, 1)      x alone, so 65,535 is no limit; cut by shape alone
//   block  kThreads threads                thread = row * columns + column: a column of pieces (8 are a line of 128 bytes), whose
//                                          mean, mul and add it has in registers for its kFwdPixels pixels of the run
//   smem   none
//   bytes  x (and the residual) read once, h written once; 12 bytes of table a channel of a frame
//   flops  4 an element, SiLU 6 more with 2 of the special units: memory-bound on every GPU we build for
//   acc    fp32; one rounding, at the store
//   limits B*T*runs*tiles, B*T and P < 2^31 (the launcher checks); offsets are 64-bit
//
//   out = act((x - mean) * mul + add) + residual                         (1)
//
// norm_act_pixels_fwd: layer and rms norms
//
//   grid   (ceil(B*T*P / teams), 1, 1)
//   block  kThreads threads: teams of `columns` threads (a power of two), a pixel each, whose
//          channels they hold in registers, up to kFwdPieces pieces a thread
//   smem   2 * 32 floats, where a team is more than a warp
//   bytes  as above; 8 bytes of table a channel, which all pixels of a clip find in the caches
//   limits C <= kMaxChannels
//
//   mean = sum x / C; rstd = 1 / sqrt(sum (x - mean)^2 / C + eps)        (1) over the team; rms: mean = 0
//   out = act((x - mean) * rstd * mul + add) + residual                  (2)
//
// Deterministic: an element is computed by one thread, from x and sums whose order the shape fixes.
#pragma once

#include "norm/cuda/sm80/norm_places.cuh"

namespace vdiff::norms {

template <bool kAligned>
constexpr int kBlocks = kAligned ? 4 : 3;  // of a multiprocessor of 65,536 registers: 32 warps, or 24

template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads, kBlocks<kAligned>) norm_act_channels_fwd_kernel(NormCall p) {
  constexpr int V = kPiece<T>;
  const ChannelPlace<T> at(p);
  if (at.channels <= 0) return;
  T* gOut = static_cast<T*>(p.out) + int64_t(at.frame) * p.pixels * p.C + at.c;
  float rMean[V], rMul[V], rAdd[V];
  load_field<V, kAligned>(rMean, p, kMean, at.frame, at.c, 0);
  load_field<V, kAligned>(rMul, p, kMul, at.frame, at.c, 1);
  load_field<V, kAligned>(rAdd, p, kAdd, at.frame, at.c, 0);

  for_pixels<T, kAligned>(p, at, p.other.data != nullptr, [&](int pixel, Piece<T> x, const Piece<T>& residual) {
    // (1) out = act((x - mean) * mul + add) + residual
#pragma unroll
    for (int i = 0; i < V; ++i) {
      x.value[i] = activated((x.value[i] - rMean[i]) * rMul[i] + rAdd[i], p.silu) + residual.value[i];
    }
    store_piece<T, kAligned>(gOut + int64_t(pixel) * p.C, x, at.channels);
  });
}

template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads) norm_act_pixels_fwd_kernel(NormCall p) {
  constexpr int V = kPiece<T>;
  __shared__ float warps[2 * kWarp];
  const TeamPixel at(p);
  const T* gX = p.x.frame<T>(at.frame, p.frames_of_clip) + p.x.pixels.at(at.pixel);
  const T* gResidual = p.other.data ? p.other.frame<T>(at.frame, p.frames_of_clip) + p.other.pixels.at(at.pixel) : nullptr;

  uint4 rX[kFwdPieces] = {}, rResidual[kFwdPieces] = {};
  for_pieces<T, kFwdPieces>(at.team, p.C, [&](int j, int c) {
    if (!at.is_there || c >= p.C) return;
    rX[j] = load_bits<T, kAligned>(gX + c, p.C - c);
    if (gResidual) rResidual[j] = load_bits<T, kAligned>(gResidual + c, p.C - c);
  });
  // (1) mean = sum x / C; rstd = 1 / sqrt(sum (x - mean)^2 / C + eps)
  const Moments of_pixel = moments_of_pixel<T, kAligned>(rX, at.team, p, warps);
  for_pieces<T, kFwdPieces>(at.team, p.C, [&](int j, int c) {
    if (!at.is_there || c >= p.C) return;
    // (2) out = act((x - mean) * rstd * mul + add) + residual
    float rMul[V], rAdd[V];
    load_field<V, kAligned>(rMul, p, kMul, at.frame, c, 1);
    load_field<V, kAligned>(rAdd, p, kAdd, at.frame, c, 0);
    Piece<T> x = unpacked<T>(rX[j]);
    const Piece<T> residual = unpacked<T>(rResidual[j]);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float n = (x.value[i] - of_pixel.mean) * of_pixel.rstd;
      x.value[i] = activated(n * rMul[i] + rAdd[i], p.silu) + residual.value[i];
    }
    store_piece<T, kAligned>(static_cast<T*>(p.out) + at.index * p.C + c, x, p.C - c);
  });
}

}  // namespace vdiff::norms
