// GEGLU on a GPU: from params to launches on PyTorch's current stream.
#pragma once

#include "common/checks.h"
#include "feedforward/params.h"

namespace vdiff {

// x's device and dtype, which is not float64, are those of the call; outputs are allocated. A weight whose rows do not have unit
// stride is copied.
void geglu_cuda(const char* op, const Tensor& x, const Tensor& weight, GegluParams params);
void geglu_cuda(const char* op, const Tensor& x, const Tensor& weight, GegluBackwardParams params);

}  // namespace vdiff
