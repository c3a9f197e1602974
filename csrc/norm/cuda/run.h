// Norms on a GPU: from params to launches on PyTorch's current stream.
#pragma once

#include "common/checks.h"
#include "norm/params.h"

namespace vdiff {

// x's device is that of the call; results are allocated. Raise for what has no kernel.
void channel_stats_cuda(const char* op, const Tensor& x, const ChannelStatsParams& params);
void norm_act_cuda(const char* op, const Tensor& x, const NormActParams& params);
void norm_act_cuda(const char* op, const Tensor& x, const NormActBackwardParams& params);

}  // namespace vdiff
