// Channel statistics on a GPU: from params to launches on PyTorch's current stream.
#pragma once

#include "common/checks.h"
#include "norm/params.h"

namespace vdiff {

// x's device is that of the call; stats are allocated.
void channel_stats_cuda(const Tensor& x, const ChannelStatsParams& params);

}  // namespace vdiff
