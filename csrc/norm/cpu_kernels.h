// The CPU kernels of this folder; conv's backward calls that of norm_act. No torch, no STL.
#pragma once

#include "common/cpu/isa.h"
#include "norm/params.h"

namespace vdiff {

VDIFF_CPU_KERNEL(cpu_channel_stats, ChannelStatsParams)
VDIFF_CPU_KERNEL(cpu_norm_act, NormActParams)
VDIFF_CPU_KERNEL(cpu_norm_act_backward, NormActBackwardParams)

}  // namespace vdiff
