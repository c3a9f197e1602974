// The CPU kernels of this folder. No torch, no STL.
#pragma once

#include "norm/params.h"

namespace vdiff {

void cpu_channel_stats(const ChannelStatsParams& p);
void cpu_norm_act(const NormActParams& p);
void cpu_norm_act_backward(const NormActBackwardParams& p);

}  // namespace vdiff
