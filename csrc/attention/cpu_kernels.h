// The CPU kernels of this folder. No torch, no STL.
#pragma once

#include "common/isa.h"
#include "attention/params.h"

namespace vdiff {

VDIFF_CPU_KERNEL(cpu_temporal_attention, TemporalAttentionFwdParams)
VDIFF_CPU_KERNEL(cpu_temporal_attention_backward, TemporalAttentionBwdParams)
VDIFF_CPU_KERNEL(cpu_spatial_attention, SpatialAttentionFwdParams)
VDIFF_CPU_KERNEL(cpu_spatial_attention_backward, SpatialAttentionBwdParams)

}  // namespace vdiff
