// Norms on a GPU: from params to launches on PyTorch's current stream.
#pragma once

#include "common/checks.h"
#include "norm/params.h"

namespace vdiff {

// x's device is that of the call; results are allocated. Raise for what has no kernel.
void channel_stats_cuda(const char* op, const Tensor& x, const ChannelStatsParams& params);
void norm_act_cuda(const char* op, const Tensor& x, const NormActParams& params);
void norm_act_cuda(const char* op, const Tensor& x, const NormActBackwardParams& params);

// Raises where a norm of each pixel by itself has more channels than a block holds of one.
void check_norm_channels_of_gpu(const char* op, int64_t C, NormKind kind);

}  // namespace vdiff
