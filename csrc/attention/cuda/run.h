// Attention on a GPU: from params to launches on PyTorch's current stream.
#pragma once

#include "attention/params.h"
#include "common/checks.h"

namespace vdiff {

// q's device and dtype, which is not float64, are those of the call; outputs are allocated.
void attention_cuda(const char* op, const Tensor& q, const TemporalAttentionFwdParams& params);
void attention_cuda(const char* op, const Tensor& q, const TemporalAttentionBwdParams& params);
void attention_cuda(const char* op, const Tensor& q, const SpatialAttentionFwdParams& params);
void attention_cuda(const char* op, const Tensor& q, const SpatialAttentionBwdParams& params);

}  // namespace vdiff
