// norm_linear on a GPU: from params to launches on PyTorch's current stream.
#pragma once

#include "common/checks.h"
#include "linear/params.h"

namespace vdiff {

// Images and their strides are put into params here: those whose pixels do not lie at even steps are copied. Raise for what has
// no kernel.
void norm_linear_cuda(const char* op, const Tensor& x, const OptionalTensor& residual, NormLinearParams params);
void norm_linear_cuda(const char* op, const Tensor& x, const Tensor& grad_out, NormLinearBackwardParams params);

}  // namespace vdiff
