// Convolutions on a GPU: from params to launches on PyTorch's current stream.
#pragma once

#include "common/checks.h"
#include "conv/params.h"

namespace vdiff {

// x's device is that of the call; results are allocated. Raise for what has no kernel.
void norm_act_conv_cuda(const char* op, const Tensor& x, const NormActConvParams& params);
void norm_act_conv_cuda(const char* op, const Tensor& x, const NormActConvBackwardParams& params);

}  // namespace vdiff
