// The CPU kernels of this folder. No torch, no STL.
#pragma once

#include "attention/params.h"
#include "common/cpu/isa.h"

namespace vdiff {

VDIFF_CPU_KERNEL(cpu_temporal_attention, TemporalAttentionFwdParams)
VDIFF_CPU_KERNEL(cpu_temporal_attention_backward, TemporalAttentionBwdParams)
VDIFF_CPU_KERNEL(cpu_spatial_attention, SpatialAttentionFwdParams)
VDIFF_CPU_KERNEL(cpu_spatial_attention_backward, SpatialAttentionBwdParams)
VDIFF_CPU_KERNEL(cpu_temporal_layer, TemporalLayerFwdParams)
VDIFF_CPU_KERNEL(cpu_temporal_layer_backward, TemporalLayerBwdParams)
VDIFF_CPU_KERNEL(cpu_spatial_layer, SpatialLayerFwdParams)
VDIFF_CPU_KERNEL(cpu_spatial_layer_backward, SpatialLayerBwdParams)

}  // namespace vdiff
