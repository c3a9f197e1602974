// The CPU kernels of this folder. No torch, no STL.
#pragma once

#include "attention/params.h"

namespace vdiff {

void cpu_temporal_attention(const TemporalAttentionFwdParams& params);
void cpu_temporal_attention_backward(const TemporalAttentionBwdParams& params);
void cpu_spatial_attention(const SpatialAttentionFwdParams& params);
void cpu_spatial_attention_backward(const SpatialAttentionBwdParams& params);

}  // namespace vdiff
