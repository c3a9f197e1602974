// weight_pack: a convolution's weight as (taps, rows, K), whose rows the product reads in whole pieces.    plan.h: PackPlan
//
//   grid   (ceil(Co / 32) * ceil(Ci / 32), 1, 1)   block kThreads threads: 32 x 32 channels at all taps
//   smem   32 x 32 elements a tap: 19 KiB, float 37 KiB
//   bytes  the weight read once and written once, zeros behind the channels of a row
//
// Turned: rows are channels in, and the taps lie the other way round, as the gradient of x has them.
#pragma once

#include "common/cuda/launch.cuh"
#include "conv/cuda/sm80/instantiations.h"

namespace vdiff::convolution {

template <class T, int kAcross>
__global__ void __launch_bounds__(kThreads) weight_pack_kernel(ConvWeight weight, T* packed, int Co, int Ci, int K, bool turned) {
  constexpr int kTaps = 3 * kAcross, kEdge = kPackEdge, kElements = kEdge * kEdge * kTaps;
  // Taps, rows and columns each lie in banks of their own: rows are an odd number of words apart, taps three, of float four.
  constexpr int kRow = kEdge + 4 / sizeof(T), kTap = kEdge * kRow + (sizeof(T) == 4 ? 4 : 6);
  __shared__ T sWeight[kTaps * kTap];
  const int tiles_ci = (Ci + kEdge - 1) / kEdge;
  const int first_co = blockIdx.x / tiles_ci * kEdge, first_ci = blockIdx.x % tiles_ci * kEdge;
  const bool is_channels_last = weight.stride_ci == 1;
  for (int i = threadIdx.x; i < kElements; i += kThreads) {
    const int in_row = i % (kEdge * kTaps), co = i / (kEdge * kTaps);
    const int ci = is_channels_last ? in_row % kEdge : in_row / kTaps, tap = is_channels_last ? in_row / kEdge : in_row % kTaps;
    const bool there = first_co + co < Co && first_ci + ci < Ci;
    const int64_t at = (first_co + co) * weight.stride_co + (first_ci + ci) * weight.stride_ci +
                       tap / kAcross * weight.stride_row + tap % kAcross * weight.stride_column;
    sWeight[tap * kTap + co * kRow + ci] = there ? static_cast<const T*>(weight.data)[at] : T{};
  }
  __syncthreads();
  const int rows = turned ? Ci : Co, first_row = turned ? first_ci : first_co, first_k = turned ? first_co : first_ci;
  for (int i = threadIdx.x; i < kElements; i += kThreads) {
    const int k = i % kEdge, row = i / kEdge % kEdge, tap = i / (kEdge * kEdge);
    if (first_row + row >= rows || first_k + k >= K) continue;
    const T value = turned ? sWeight[(kTaps - 1 - tap) * kTap + k * kRow + row] : sWeight[tap * kTap + row * kRow + k];
    packed[(int64_t(tap) * rows + first_row + row) * K + first_k + k] = value;
  }
}

template <class T>
void launch_weight_pack(
    const ConvWeight& weight, const ConvSizes& sizes, const PackPlan& plan, bool turned, void* packed, cudaStream_t stream) {
  const auto kernel = sizes.temporal ? weight_pack_kernel<T, 1> : weight_pack_kernel<T, 3>;
  launch("weight_pack_kernel", kernel, plan.shape, stream, weight, static_cast<T*>(packed), int(sizes.Co), int(sizes.Ci),
         int(plan.K), turned);
}

}  // namespace vdiff::convolution
