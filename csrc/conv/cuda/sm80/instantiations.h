// The launches of the convolutions' kernels, for each T; instantiations/ has a file for each dtype and kernel.
#pragma once

#include "conv/cuda/planes.h"
#include "conv/cuda/sm80/calls.h"

namespace vdiff::convolution {

template <class T>
void launch_conv(const ConvCall& call, Result result, int across, const LaunchShape& shape, cudaStream_t stream);

template <class T>
void launch_conv_du(const ConvCall& call, int across, const LaunchShape& shape, cudaStream_t stream);

// parts: the plan's; dweight (Co, Ci, taps).
template <class T>
void launch_dweight(const WeightCall& call, const WeightPlan& plan, void* dweight, int across, cudaStream_t stream);

template <class T>
void launch_weight_pack(
    const ConvWeight& weight, const ConvSizes& sizes, const PackPlan& plan, bool turned, void* packed, cudaStream_t stream);

}  // namespace vdiff::convolution
