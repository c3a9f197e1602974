// pixel_sums: each channel's sum over a run of a frame's pixels, of which the gradients of biases are made.
//
//   grid   (B*T * runs * tiles of 8 pieces of channels, 1, 1)
//   block  256 threads: 32 rows of 8 pieces, of 16 bytes      smem  256 pieces in float: 8 KiB, float 4 KiB
//   bytes  read once, 4 a channel of a run (512 pixels) written                flops  1 an element: memory-bound
//
//   sum += x, row by row; rows of a channel added pairwise         (1)
#pragma once

#include "common/cuda/image.h"
#include "common/cuda/launch.cuh"
#include "common/cuda/pieces.cuh"
#include "common/cuda/pixel_sums_plan.h"
#include "common/cuda/team.cuh"

namespace vdiff {

// sums (B, runs, T, C)
template <class T, int kAligned>
__global__ void __launch_bounds__(kPixelSumThreads)
    pixel_sums_kernel(Image x, int C, int frames_of_clip, int pixels, int runs, int tiles, float* sums) {
  constexpr int V = kPiece<T>, kRows = kPixelSumThreads / kPixelSumPieces;
  __shared__ float shared[kPixelSumThreads * V];
  const int tile = blockIdx.x % tiles, frame_run = blockIdx.x / tiles, run = frame_run % runs, frame = frame_run / runs;
  const int c = (tile * kPixelSumPieces + threadIdx.x % kPixelSumPieces) * V, row = threadIdx.x / kPixelSumPieces;
  const int end = min(pixels, (run + 1) * kPixelSumRun);
  const T* const gX = x.frame<T>(frame, frames_of_clip) + c;
  // (1) sum += x; rows of a channel added pairwise
  float rSums[V] = {};
  for (int pixel = run * kPixelSumRun + row; pixel < end && c < C; pixel += kRows) {
    const Piece<T> piece = unpacked<T>(load_bits<T, kAligned>(gX + x.pixels.at(pixel), C - c));
#pragma unroll
    for (int i = 0; i < V; ++i) rSums[i] += piece.value[i];
  }
  sum_of_rows(rSums, kPixelSumPieces, shared);
  if (row != 0 || c >= C) return;
  const int64_t table = int64_t(frame / frames_of_clip * runs + run) * frames_of_clip + frame % frames_of_clip;
  store_floats<V, kAligned>(sums + table * C + c, rSums, C - c);
}

template <class T, class Sizes>
void launch_pixel_sums(
    const Sizes& s, const PixelSumsPlan& plan, const void* x, const ImageStrides& stride, int64_t C, DType dtype, float* sums,
    cudaStream_t stream) {
  const auto kernel = is_aligned(s, C, dtype, {x}, {&stride}) ? pixel_sums_kernel<T, 1> : pixel_sums_kernel<T, 0>;
  launch("pixel_sums_kernel", kernel, plan.shape, stream, image(s, x, stride), int(C), int(s.T), int(s.H * s.W), int(plan.runs),
         int(plan.tiles), sums);
}

}  // namespace vdiff
